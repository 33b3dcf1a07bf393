"""The stages, in the order in which they run.

alpha is read only by `steer` and k only by `select`, so that a sweep over both shares images, activations and probes.
"""

from icm_pipeline.config.schema import ConfigError, Settings
from icm_pipeline.methods.base import Fit
from icm_pipeline.methods.registry import method_named
from icm_pipeline.pipeline.stage import Stage

MODEL = (
    "model.path", "model.revision", "model.variant", "model.dtype", "model.num_steps", "model.guidance_scale",
    "model.scheduler", "model.height", "model.width", "model.call", "model.vae_tiling",
)  # fmt: skip
# What changes images by rounding at most: part of no key, but told in the manifest of what the model made.
ROUNDING = (
    "model.batch_size", "model.grow_batch", "model.decode_batch_size", "model.vae_slicing", "model.channels_last",
    "model.attention_kernel", "model.compile", "model.offload",
)  # fmt: skip
PROBE_DATASET = (
    *MODEL, "attribute.probe_templates", "attribute.probe_subjects", "generate.images_per_prompt", "seed",
)  # fmt: skip
RECORDING = ("model.sites", "timesteps.start", "timesteps.count")
EVALUATION_SET = (*MODEL, "attribute.evaluation_prompts", "evaluate.images_per_prompt", "seed")
DENOISING_SPEED = (
    "model.path", "model.dtype", "model.guidance_scale", "model.scheduler", "model.height", "model.width", "model.call",
)  # fmt: skip
LABELLING = (
    "labeler.kind", "labeler.model", "labeler.path", "labeler.faces", "labeler.detector", "labeler.groups",
    "attribute.name", "attribute.options",
)  # fmt: skip
JUDGING = (
    "judge.kind", "judge.model", "judge.path", "judge.faces", "judge.detector", "judge.groups",
    "evaluate.clip.model", "evaluate.clip.path", "evaluate.drift", "evaluate.bootstrap", "evaluate.fd",
    "evaluate.reference", "evaluate.inception", *LABELLING,
)  # fmt: skip
OF_FOLDER = ("method.target_shares", "seed")  # read by an evaluation of a folder in place of how many images there are
PROBING = (
    "probe.C", "probe.max_iter", "probe.solver", "probe.test_share", "probe.group_by_prompt",
    "probe.shuffle_labels", "attribute.name", "seed",
)  # fmt: skip


def _activations(settings: Settings) -> str:
    return "generate" if settings.generate.record else "extract"


def _fit(settings: Settings) -> Fit:
    fit = method_named(settings.method.name).fit
    if fit is None:
        raise ConfigError(f"stage=fit: method={settings.method.name} learns nothing before it steers.")
    return fit


def _read_besides(settings: Settings) -> list[str]:
    """Return what the method reads beside alpha and its own settings."""
    reads = method_named(settings.method.name).reads
    return [name for name in reads if name != "alpha" and name.split(".")[0] != "method"]


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "generate",
            "make the probe dataset, and record pooled activations in the same pass",
            kind="root",
            reads=lambda s: (*PROBE_DATASET, "generate.record", *(RECORDING if s.generate.record else ())),
            devices=lambda s: ("model.device",),
            makes=("images", "activations"),
            asks=("labeler", "judge"),  # long before they judge: the dataset is made for them
            same_speed=DENOISING_SPEED,
            shared=True,
        ),
        Stage(
            "extract",
            "record pooled activations of the probe dataset on its own, with generate.record=false",
            kind="root",
            reads=lambda s: (*PROBE_DATASET, *RECORDING),
            part_of=lambda s: s.images is None and not s.generate.record,
            devices=lambda s: ("model.device",),
            makes=("activations",),
            same_speed=DENOISING_SPEED,
            shared=True,
        ),
        Stage(
            "label",
            "say what every probe image, or every image of a folder, shows",
            kind="step",
            needs=lambda s: () if s.images is not None else ("generate",),
            reads=lambda s: LABELLING,
            part_of=lambda s: True,
            devices=lambda s: ("labeler.device",),
            asks=("labeler",),
            same_speed=("labeler.kind", "labeler.model", "labeler.path", "labeler.faces", "labeler.detector"),
            images=("images",),
            shared=True,
        ),
        Stage(
            "probe",
            "fit a linear probe per layer and timestep, and its steering vectors",
            kind="end",
            needs=lambda s: tuple(dict.fromkeys((_activations(s), "generate", "label"))),
            reads=lambda s: PROBING,
            devices=lambda s: ("probe.device",),
            same_speed=("model.path", "attribute.options", "probe.solver"),
        ),
        Stage(
            "select",
            "rank the layers and choose those to steer",
            kind="end",
            needs=lambda s: ("probe",),
            reads=lambda s: ("layers",),
        ),
        Stage(
            "fit",
            "fit what the method learns before it steers, if it learns anything",
            kind="end",
            needs=lambda s: _fit(s).needs,
            reads=lambda s: (*MODEL, "attribute.name", "attribute.options", "seed", *_fit(s).reads),
            part_of=lambda s: s.images is None and method_named(s.method.name).fit is not None,
            devices=lambda s: ("model.device",),
            same_speed=DENOISING_SPEED,
        ),
        Stage(
            "originals",
            "make the unsteered evaluation images",
            kind="root",
            reads=lambda s: EVALUATION_SET,
            devices=lambda s: ("model.device",),
            makes=("images",),
            same_speed=DENOISING_SPEED,
            shared=True,
        ),
        Stage(
            "steer",
            "make the evaluation images again, steered",
            kind="step",
            needs=lambda s: method_named(s.method.name).parents,
            reads=lambda s: (*EVALUATION_SET, "alpha", "method", "attribute.name", *_read_besides(s)),
            devices=lambda s: ("model.device",),
            makes=("images",),
            same_speed=DENOISING_SPEED,
            shared=True,
        ),
        Stage(
            "evaluate",
            "judge images, and their unsteered twins: FD, CLIP-I, obedience, drift",
            kind="result",
            needs=lambda s: () if s.images is not None else ("originals", "steer"),
            reads=lambda s: (*JUDGING, *(OF_FOLDER if s.images is not None else ("evaluate.images_per_prompt",))),
            part_of=lambda s: True,
            devices=lambda s: ("labeler.device",) if s.images is not None else ("judge.device", "evaluate.clip.device"),
            asks=("judge",),
            same_speed=(
                "judge.kind", "judge.model", "judge.path", "judge.faces", "judge.detector", "evaluate.clip.model",
                "evaluate.clip.path", "labeler.kind", "labeler.model", "labeler.path", "evaluate.reference",
            ),
            images=("images", "reference"),
        ),
        Stage(
            "report",
            "draw the figures and write the page",
            kind="result",
            needs=lambda s: (_activations(s), "label", "probe", "select", "originals", "steer", "evaluate"),
            compares=True,
        ),
    )
}  # fmt: skip
# What `stage=` runs beside single stages.
COMMANDS = {
    "all": "every stage that is not done, in order",
    "plan": "say what all would do, keep and take",
    "pretrain": "train the embedded models",
}


def stages_of(settings: Settings) -> tuple[str, ...]:
    """Return the stages that `stage=all` runs, in order."""
    return tuple(name for name, stage in STAGES.items() if stage.part_of(settings))


def kinds_of_stages() -> dict[str, str]:
    """Return what each stage's artifacts are to an outputs folder."""
    return {name: stage.kind for name, stage in STAGES.items()}


def stages_help() -> str:
    """Return a line per stage and command, for --help."""
    summaries = {name: stage.summary for name, stage in STAGES.items()} | COMMANDS
    return "\n".join(f"{name:<16}{summary}" for name, summary in summaries.items())
