"""The shape of the configuration: dataclass schemas under the YAML, so that a typo fails at composition.

Every default stands in `conf/`, none here. The dataclasses are not frozen because OmegaConf makes frozen ones
read-only, and a read-only node cannot be overridden from the command line.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass
class SteeringDefaults:
    """What steering this model starts from: the defaults of alpha, layers.k, probe.C and the method's window."""

    alpha: float
    alpha_unit: str
    k: int
    C: float
    first_step: int
    last_step: int | None


@dataclass
class OutlineConfig:
    """What of an architecture decides how much its runs compute and keep.

    widths: pairs [width, number of sites] by kind; size: pixels of a picture's side where none is set; channels: of the
    denoiser's output, per place of the latents; factor: pixels a place; rows: of a call, per image without guidance;
    guided_above: the guidance scale above which an image has one row more, None if the scale is an input.
    """

    widths: dict[str, list[list[int]]]
    size: int
    channels: int
    factor: int
    rows: int
    guided_above: float | None


@dataclass
class ModelConfig:
    """What to load and how to sample from it.

    path: a local folder, a hub id, or `embedded:<name>`; revision: the hub's commit; scheduler: the sampler by name,
    None keeps the pipeline's own; height, width: pixels, None for the model's own; call: further arguments of the
    pipeline's call; grow_batch: take more images at once than batch_size as long as they fit into a GPU's memory;
    decode_batch_size: images decoded at once, None for as many as were denoised; sites: patterns of module names by
    kind, empty for those of the model's family; outline: that of the published model, for planning before its files are
    on this disk.
    """

    name: str
    path: str
    revision: str | None
    variant: str | None
    dtype: str
    device: str
    offload: str
    vae_slicing: bool
    vae_tiling: bool
    channels_last: bool
    attention_kernel: str | None
    compile: bool
    num_steps: int
    guidance_scale: float
    height: int | None
    width: int | None
    scheduler: str | None
    call: dict[str, Any]
    batch_size: int
    grow_batch: bool
    decode_batch_size: int | None
    num_threads: int | None
    sites: dict[str, str]
    outline: OutlineConfig | None
    steering: SteeringDefaults


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
    """Which denoising steps are recorded: from the share `start` of the run on, `count` of them (None: all)."""

    name: str
    start: float
    count: int | None


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
    """Who says what an image shows. `path` is a checkpoint, a hub tag or `embedded:<name>`.

    faces: which faces of an image are judged, `none` judges the image as a whole; detector: what finds them; groups:
    which of the judge's own classes make up an option, {head: {option: [classes]}}.
    """

    kind: str
    model: str
    path: str
    batch_size: int
    device: str
    faces: str
    detector: str
    groups: dict[str, dict[str, list[str]]]


@dataclass
class MethodConfig:
    """How generation is changed. draw_size: how many images of a prompt share a draw with assignment=batch."""

    name: str
    direction: str
    alpha_unit: str
    assignment: str
    draw_size: int
    first_step: int
    last_step: int | None
    vector: str
    norm_preserving: bool
    target_shares: list[float] | None
    params: dict[str, Any]
    """What this method alone takes."""


@dataclass
class GenerateConfig:
    """The probe dataset: every probe prompt with this many seeds; `record` pools activations in the same pass.

    shard_size: images per shard of any set; reuse_prefix: keep the evaluation images' steps before the first steered
    one on disk, so that they are computed once for all ways of steering.
    """

    images_per_prompt: int
    record: bool
    shard_size: int
    reuse_prefix: bool


@dataclass
class ProbeConfig:
    """The probes' optimisation problem, where it is solved, and their held-out split."""

    C: float
    max_iter: int
    solver: str
    device: str
    test_share: float
    group_by_prompt: bool
    shuffle_labels: bool
    min_per_option: int


@dataclass
class EvaluateConfig:
    """The evaluation images: every evaluation prompt with this many seeds, steered and not.

    `drift` are the other attributes whose change is measured, `clip` the encoder of CLIP-I and CLIP-T, `bootstrap` the
    number of resamplings behind each interval; fd: of mean `probabilities` or of hard `labels`; reference: a folder of
    pictures or another run's artifact for FID and KID; inception: the checkpoint of their features, None for `clip`'s.
    """

    images_per_prompt: int
    clip: LabelerConfig
    drift: dict[str, AttributeConfig]
    bootstrap: int
    fd: str
    reference: str | None
    inception: str | None


@dataclass
class FoldersConfig:
    """How folders given as `images` and `reference` are read: by a CSV table, or by rules over the files' names."""

    table: str | None
    names: list[str]


@dataclass
class TrackerConfig:
    name: str
    mode: str
    project: str
    entity: str | None
    group: str | None


@dataclass
class PlanConfig:
    """What `stage=plan` is told: seconds that one unsteered image takes, None for what finished artifacts took."""

    seconds_per_image: float | None


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
    """The whole configuration.

    sweep: the folder of a multirun, for `stage=report` to report on instead of one run; shards: jobs that share the
    work of a long stage; shard: which of them this one is, None for whatever the others leave; devices: where to share
    it among processes of this machine; images, reference: folders that `stage=label` and `stage=evaluate` judge instead
    of the pipeline's own images, and their unsteered twins.
    """

    stage: str
    sweep: str | None
    seed: int
    alpha: float
    force: bool
    shards: int
    shard: int | None
    devices: list[str]
    images: str | None
    reference: str | None
    folders: FoldersConfig
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
    plan: PlanConfig
    paths: PathsConfig
    pretrain: PretrainConfig


def register_schema() -> None:
    """Tell Hydra the schema, under the name `schema` that conf/config.yaml lists first."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Settings)


def value_at(settings: Settings, dotted: str) -> Any:
    """Return a value or a whole group (as plain data) by its dotted name."""
    value: Any = asdict(settings)
    for part in dotted.split("."):
        value = value[part]
    return value


def conf_path() -> Path:
    """Return the folder with the YAML: inside an installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "config.yaml").exists():
            return folder
    raise FileNotFoundError(f"No conf/config.yaml beside {package} or in its checkout: reinstall icm_pipeline.")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what to change."""
