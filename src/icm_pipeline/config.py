"""The shape of the configuration: dataclass schemas under the YAML, so that a typo fails at composition.

Every default stands in `conf/`, none here. The dataclasses are not frozen because OmegaConf makes frozen ones
read-only, and a read-only node cannot be overridden from the command line.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHOICES = {
    "layers.rule": ("top", "worst", "random", "all", "named"),
    "layers.kind": ("self_attention", "cross_attention", "feed_forward"),
    "method.name": ("icm", "none"),
    "method.direction": ("probe", "mean_difference", "pattern"),
    "method.alpha_unit": ("activation", "relative"),
    "method.assignment": ("quota", "image", "batch"),
    "method.vector": ("per_step", "mean"),
    "labeler.kind": ("clip", "tiny"),
    "judge.kind": ("clip", "tiny"),
    "model.dtype": ("float32", "float16", "bfloat16"),
    "tracker.name": ("wandb", "none"),
    "tracker.mode": ("offline", "online", "disabled"),
    "pretrain.part": ("all", "portraits", "autoencoder", "classifier", "clip", "diffusion", "quality"),
}


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what to change."""


@dataclass
class ModelConfig:
    """What to load and how to sample from it. `path` is a local folder, a hub id, or `embedded:<name>`."""

    name: str
    family: str
    path: str
    dtype: str
    num_steps: int
    guidance_scale: float
    batch_size: int
    device: str
    num_threads: int | None
    sites: dict[str, str]


@dataclass
class AttributeConfig:
    """A choice that prompts leave open: its options with label texts, and the prompts to probe and evaluate on."""

    name: str
    options: dict[str, list[str]]
    probe_templates: list[str]
    probe_subjects: list[str]
    evaluation_prompts: list[str]


@dataclass
class TimestepsConfig:
    """Which denoising steps are recorded (every `stride`-th from `first` on)."""

    name: str
    first: int
    stride: int


@dataclass
class LayersConfig:
    """Which layers are steered: `k` of a site kind by a rule over the probes' scores, or those named."""

    kind: str
    rule: str
    k: int
    names: list[str]
    seed: int


@dataclass
class LabelerConfig:
    """Who says what an image shows. `path` is a checkpoint, a hub tag or `embedded:<name>`."""

    kind: str
    model: str
    path: str
    batch_size: int
    device: str


@dataclass
class MethodConfig:
    """How generation is changed."""

    name: str
    direction: str
    alpha_unit: str
    assignment: str
    first_step: int
    last_step: int | None
    vector: str
    norm_preserving: bool
    target_shares: list[float] | None


@dataclass
class GenerateConfig:
    """The probe dataset: every probe prompt with this many seeds; `record` pools activations in the same pass."""

    images_per_prompt: int
    record: bool
    shard_size: int


@dataclass
class ProbeConfig:
    """The probes' optimisation problem and their held-out split."""

    C: float
    max_iter: int
    test_share: float
    group_by_prompt: bool
    shuffle_labels: bool
    min_per_option: int


@dataclass
class EvaluateConfig:
    """The evaluation images: every evaluation prompt with this many seeds, steered and not.

    `drift` are the other attributes whose change is measured, `clip` the image encoder of CLIP-I, `bootstrap` the
    number of resamplings behind each interval.
    """

    images_per_prompt: int
    clip: LabelerConfig
    drift: dict[str, AttributeConfig]
    bootstrap: int


@dataclass
class TrackerConfig:
    name: str
    mode: str
    project: str
    entity: str | None
    group: str | None


@dataclass
class PathsConfig:
    outputs: str


@dataclass
class PretrainConfig:
    """Sizes and lengths of training the embedded parts."""

    part: str
    folder: str
    install: bool
    device: str
    num_portraits: int
    num_held_out: int
    num_quality_images: int
    steps: dict[str, int]
    batch_sizes: dict[str, int]
    learning_rates: dict[str, float]
    compile: bool
    from_shipped: bool


@dataclass
class Settings:
    """The whole configuration."""

    stage: str
    seed: int
    alpha: float
    force: bool
    model: ModelConfig
    attribute: AttributeConfig
    timesteps: TimestepsConfig
    layers: LayersConfig
    labeler: LabelerConfig
    judge: LabelerConfig
    method: MethodConfig
    generate: GenerateConfig
    probe: ProbeConfig
    evaluate: EvaluateConfig
    tracker: TrackerConfig
    paths: PathsConfig
    pretrain: PretrainConfig


def register_schema() -> None:
    """Tell Hydra the schema, under the name `schema` that conf/config.yaml lists first."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Settings)


def to_settings(cfg: Any) -> Settings:
    """Resolve a composed configuration into checked `Settings`; raises ConfigError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        settings = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(f"The configuration does not hold together: {error}") from error
    assert isinstance(settings, Settings)
    check(settings)
    return settings


def value_at(settings: Settings, dotted: str) -> Any:
    """Return a value or a whole group (as plain data) by its dotted name."""
    value: Any = asdict(settings)
    for part in dotted.split("."):
        value = value[part]
    return value


def check(settings: Settings) -> None:
    """Refuse what cannot work before anything is computed; raises ConfigError naming the value and its choices."""
    for dotted, choices in CHOICES.items():
        found = value_at(settings, dotted)
        if found not in choices:
            raise ConfigError(f"{dotted}={found} is not known. Choose one of: {', '.join(choices)}.")
    if not math.isfinite(settings.alpha):
        raise ConfigError(f"alpha={settings.alpha} is not a finite number. Set alpha to a number such as alpha=1.0.")
    for dotted, least in {
        "model.num_steps": 1, "model.batch_size": 1, "layers.k": 1, "generate.images_per_prompt": 1,
        "generate.shard_size": 1, "evaluate.images_per_prompt": 1, "timesteps.stride": 1, "timesteps.first": 0,
        "method.first_step": 0, "probe.max_iter": 1, "probe.min_per_option": 2, "evaluate.bootstrap": 1,
        "seed": 0, "layers.seed": 0, "labeler.batch_size": 1, "judge.batch_size": 1, "evaluate.clip.batch_size": 1,
    }.items():  # fmt: skip
        if value_at(settings, dotted) < least:
            raise ConfigError(f"{dotted}={value_at(settings, dotted)} must be at least {least}.")
    threads = settings.model.num_threads
    if threads is not None and threads < 1:
        raise ConfigError(f"model.num_threads={threads} must be at least 1, or null for torch's own choice.")
    if not math.isfinite(settings.model.guidance_scale):
        raise ConfigError(f"model.guidance_scale={settings.model.guidance_scale} is not a finite number.")
    last = settings.method.last_step
    if last is not None and last < settings.method.first_step:
        raise ConfigError(
            f"method.last_step={last} lies before method.first_step={settings.method.first_step}: "
            "no step would be steered."
        )
    steps = settings.model.num_steps
    for dotted in ("timesteps.first", "method.first_step"):
        if value_at(settings, dotted) >= steps:
            raise ConfigError(f"{dotted}={value_at(settings, dotted)} lies beyond the last of {steps} steps (0-based).")
    if not 0 < settings.probe.test_share < 1:
        raise ConfigError(f"probe.test_share={settings.probe.test_share} must lie between 0 and 1.")
    if not settings.probe.C > 0 or not math.isfinite(settings.probe.C):
        raise ConfigError(f"probe.C={settings.probe.C} must be a positive, finite number.")
    _check_attribute(settings.attribute)
    _check_shares(settings)


def _check_attribute(attribute: AttributeConfig) -> None:
    if len(attribute.options) < 2:
        raise ConfigError(
            f"Attribute {attribute.name!r} has {len(attribute.options)} option(s) ({', '.join(attribute.options)}); "
            "a choice needs at least two. Add options to conf/attribute/<name>.yaml."
        )
    for option, texts in attribute.options.items():
        if not texts or not all(text.strip() for text in texts):
            raise ConfigError(f"Option {option!r} of attribute {attribute.name!r} has an empty label text.")
    prompts = {
        "probe_templates": attribute.probe_templates,
        "probe_subjects": attribute.probe_subjects,
        "evaluation_prompts": attribute.evaluation_prompts,
    }
    for name, texts in prompts.items():
        if not texts:
            raise ConfigError(f"attribute.{name} is empty: attribute {attribute.name!r} needs at least one prompt.")
        for text in texts:
            if not text.strip():
                raise ConfigError(f"attribute.{name} contains an empty prompt.")
    for template in attribute.probe_templates:
        if "{}" not in template:
            raise ConfigError(f"Probe template {template!r} has no {{}} where the subject goes.")


def _check_shares(settings: Settings) -> None:
    shares = settings.method.target_shares
    if shares is None:
        return
    options = list(settings.attribute.options)
    if len(shares) != len(options):
        raise ConfigError(f"method.target_shares has {len(shares)} numbers for {len(options)} options: {options}.")
    if min(shares) < 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise ConfigError(f"method.target_shares={shares} must be non-negative and sum to 1 (sum {sum(shares):g}).")


def conf_path() -> Path:
    """Return the folder with the YAML: inside an installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "config.yaml").exists():
            return folder
    raise FileNotFoundError(f"No conf/config.yaml beside {package} or in its checkout: reinstall icm_pipeline.")
