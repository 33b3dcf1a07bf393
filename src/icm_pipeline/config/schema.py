"""The shape of the configuration: dataclass schemas under the YAML, so that a typo fails at composition.

Every default stands in `conf/`; here only what a configuration means that was saved before a setting was there. The
dataclasses are not frozen because OmegaConf makes frozen ones read-only, and a read-only node cannot be overridden from
the command line.
"""

from dataclasses import dataclass, field
from typing import Any

from icm_pipeline.config import choices
from icm_pipeline.config.auditing import AuditConfig
from icm_pipeline.config.benching import BenchConfig
from icm_pipeline.config.bounds import COUNT, number, one_of
from icm_pipeline.config.exploring import ExploreConfig
from icm_pipeline.config.localizing import LocalizersConfig
from icm_pipeline.config.models import ComputeConfig, ModelConfig

AUTO = "auto"
LARGEST_SEED = 2**32 - 1  # that KID's random generator takes; jobs' own seeds, two million for each, stay below 2**63
SEED = number(at_least=0, at_most=LARGEST_SEED)


@dataclass
class AttributeConfig:
    """A choice that prompts leave open: its options with label texts, and the prompts to probe and evaluate on."""

    name: str
    """Part of artifacts' names, and what judges know the question by."""
    options: dict[str, list[str]]
    """{option: texts that describe it}; CLIP takes the best of them."""
    probe_templates: list[str]
    """Prompts that leave the choice open, with {} where a subject goes."""
    probe_subjects: list[str]
    """What goes there; as neutral as it can be."""
    evaluation_prompts: list[str]
    """What is steered and measured; other prompts than those that are probed."""
    # Saved configurations may be from before these three.
    words: dict[str, list[str]] = field(default_factory=dict, kw_only=True)
    """{option: [words]} of a prompt that names an option and so leaves nothing open."""
    trial_subjects: list[str] = field(default_factory=list, kw_only=True)
    """In probe templates they make the prompts that alpha=auto is tried on; empty for the probe subjects."""
    named: dict[str, str] = field(default_factory=dict, kw_only=True)
    """{option: a subject with {} in it, as `female {}`}: how a prompt names an option, for stage=named."""
    said: dict[str, str] = field(default_factory=dict, kw_only=True)  # younger still
    """The same, where method=prompt, uce and time name it otherwise than `named` does; as `woman {}`."""


@dataclass
class TimestepsConfig:
    """Which denoising steps are recorded."""

    name: str
    start: float = field(metadata=number(at_least=0, less_than=1))
    """The share of the steps before the first recorded one."""
    count: int | None = field(metadata=number(at_least=1, null="every step"))


@dataclass
class LayersConfig:
    """Which layers are steered: `k` of a site kind by a rule over the probes' scores, or those named."""

    kind: str = field(metadata=one_of(*choices.SITE_KINDS))
    rule: str = field(metadata=one_of(*choices.RULES))
    k: int = field(metadata=COUNT)
    names: list[str]
    seed: int = field(metadata=SEED)


@dataclass
class LabelerConfig:
    """Who says what an image shows."""

    kind: str = field(metadata=one_of(*choices.JUDGES))
    model: str
    path: str
    """A checkpoint, a hub tag or `embedded:<name>`."""
    batch_size: int = field(metadata=COUNT)
    device: str
    faces: str = field(metadata=one_of(*choices.FACES))
    """Which faces of an image are judged; `none` judges the image as a whole."""
    detector: str
    groups: dict[str, dict[str, list[str]]]
    """Which of the judge's own classes make up an option, {head: {option: [classes]}}."""
    preprocess: str | None = field(default=None, kw_only=True)  # saved configurations may be from before it
    """The tag of open_clip's that says how a CLIP given as a file was trained: its activation and its pixels."""


@dataclass
class ClipConfig(LabelerConfig):
    """The encoder of CLIP-I and CLIP-T."""

    kind: str = field(metadata=one_of("clip"))


@dataclass
class MethodConfig:
    """How generation is changed."""

    name: str
    direction: str = field(metadata=one_of(*choices.DIRECTIONS))
    alpha_unit: str = field(metadata=one_of("activation", "relative"))
    assignment: str = field(metadata=one_of(*choices.ASSIGNMENTS))
    draw_size: int = field(metadata=COUNT)
    """How many images of a prompt share a draw with assignment=batch."""
    first_step: int = field(metadata=number(at_least=0))
    last_step: int | None = field(metadata=number(at_least=0, null="the end"))
    vector: str = field(metadata=one_of("per_step", "mean"))
    norm_preserving: bool
    target_shares: list[float] | None
    params: dict[str, Any]
    """What this method alone takes."""
    look: Any = field(  # saved configurations may be from before it
        default=None, kw_only=True, metadata=number(at_least=1, whole=True, word="auto", null="the finished originals")
    )
    """With assignment=least_change: how many steps run before the reading; auto for the first that is good enough."""
    wanted_share: float = field(default=0.95, kw_only=True, metadata=number(more_than=0, at_most=1))  # younger, too
    """With alpha=auto: of the images that must change to an option, the share that has to."""
    tries: int = field(default=1, kw_only=True, metadata=COUNT)  # younger, too
    """With assignment=least_change and no look: how many images are steered for each that has to change, at most."""
    strength: str | None = field(default=None, kw_only=True)  # younger, too
    """The setting that says how far the method goes, `alpha` or `params.<name>`; none where it has no such thing."""
    strengths: list[float] = field(default_factory=list, kw_only=True)
    """What a bench tries of it."""
    shares_table: str | None = field(default=None, kw_only=True)  # younger, too
    """A CSV of the target shares of each prompt or subject, which fills shares_by_prompt."""
    shares_by_prompt: dict[str, Any] = field(default_factory=dict, kw_only=True)  # younger, too
    """{evaluation prompt: a share per option}, in place of target_shares; empty for the same shares of all prompts."""


@dataclass
class GenerateConfig:
    """The probe dataset: every probe prompt with this many seeds."""

    images_per_prompt: int = field(metadata=COUNT)
    record: bool
    store: str = field(default="float16", kw_only=True, metadata=one_of(*choices.STORED))
    """The precision that pooled activations are kept in, of STORED."""
    shard_size: int = field(metadata=COUNT)
    """Images per shard of any set."""
    reuse_prefix: bool
    """Keep the evaluation images' steps before the first steered one, computed once for all ways of steering."""


@dataclass
class ProbeConfig:
    """The probes' optimisation problem, where it is solved, and their held-out split."""

    C: float = field(metadata=number(more_than=0))
    max_iter: int = field(metadata=COUNT)
    solver: str = field(metadata=one_of(*choices.SOLVERS))
    device: str
    test_share: float = field(metadata=number(more_than=0, less_than=1))
    group_by_prompt: bool
    shuffle_labels: bool
    min_per_option: int = field(metadata=number(at_least=2))


@dataclass
class EvaluateConfig:
    """The evaluation images: every evaluation prompt with this many seeds, steered and not."""

    images_per_prompt: int = field(metadata=COUNT)
    clip: ClipConfig
    drift: dict[str, AttributeConfig]
    """The other attributes whose change is measured."""
    bootstrap: int = field(metadata=COUNT)
    """Resamplings behind each interval."""
    fd: str = field(metadata=one_of("probabilities", "labels"))
    """Of mean probabilities or of hard labels."""
    reference: str | None
    """A folder of pictures or another run's artifact for FID and KID."""
    inception: str | None
    """The checkpoint of their features; None for those of `clip`."""
    seeds_before: int = field(default=0, kw_only=True, metadata=number(at_least=0))
    """Of the evaluation's seeds, how many are left to others, who may have looked at their images."""


@dataclass
class FoldersConfig:
    """How folders given as `images` and `reference` are read: by a CSV table, or by rules over the files' names."""

    table: str | None
    names: list[str]


@dataclass
class TrackerConfig:
    name: str = field(metadata=one_of("wandb", "tensorboard", "csv", "none"))
    mode: str = field(metadata=one_of("offline", "online", "disabled"))
    project: str
    entity: str | None
    group: str | None


@dataclass
class PlanConfig:
    """What `stage=plan` is told."""

    seconds_per_image: float | None = field(metadata=number(more_than=0, null="what finished artifacts took"))
    """Of an unsteered image."""


@dataclass
class PathsConfig:
    outputs: str


@dataclass
class PretrainConfig:
    """Sizes and lengths of training the embedded parts."""

    part: str = field(metadata=one_of(*choices.PARTS))
    folder: str
    install: bool
    device: str
    num_portraits: int = field(metadata=COUNT)
    num_held_out: int = field(metadata=COUNT)
    num_quality_images: int = field(metadata=COUNT)
    steps: dict[str, int] = field(metadata=COUNT)
    batch_sizes: dict[str, int] = field(metadata=COUNT)
    learning_rates: dict[str, float] = field(metadata=number(more_than=0))
    compile: bool
    from_shipped: bool


@dataclass
class Settings:
    """The whole configuration."""

    stage: str
    sweep: str | None
    """The folder of a multirun, for `stage=report` to report on instead of one run."""
    seed: int = field(metadata=SEED)
    alpha: Any = field(metadata=number(word=AUTO))
    """A number, or `auto` for each option's own, which stage=tune searches."""
    force: bool
    shards: int = field(metadata=COUNT)
    """How many jobs share the work of a long stage."""
    shard: int | None
    """Which of them this one is; None for whatever the others leave."""
    devices: list[str]
    """Where to share the work among processes of this machine."""
    images: str | None
    """A folder that `stage=label` and `stage=evaluate` judge instead of the pipeline's own images."""
    reference: str | None
    """The folder of their unsteered twins."""
    folders: FoldersConfig
    model: ModelConfig
    compute: ComputeConfig
    attribute: AttributeConfig
    timesteps: TimestepsConfig
    layers: LayersConfig
    labeler: LabelerConfig
    judge: LabelerConfig
    method: MethodConfig
    generate: GenerateConfig
    probe: ProbeConfig
    evaluate: EvaluateConfig
    audit: AuditConfig
    tracker: TrackerConfig
    plan: PlanConfig
    paths: PathsConfig
    pretrain: PretrainConfig
    localizers: LocalizersConfig = field(default_factory=LocalizersConfig, kw_only=True)  # younger than saved ones
    bench: BenchConfig = field(default_factory=BenchConfig, kw_only=True)  # saved configurations may be from before it
    explore: ExploreConfig = field(default_factory=ExploreConfig, kw_only=True)  # younger, too

    @property
    def searched(self) -> str | None:
        """The setting whose value stage=strength chooses, if it does."""
        return self.method.strength if self.bench.included or self.stage == "strength" else None
