"""The stages: what each needs and which part of the configuration changes its result.

alpha enters only at `steer` and k only at `select`, so a sweep over both shares images, activations and probes.
"""

from icm_pipeline.config.schema import ConfigError, Settings
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
EVALUATION_SET = (*MODEL, "attribute.evaluation_prompts", "evaluate.images_per_prompt", "seed")
LABELLING = (
    "labeler.kind", "labeler.model", "labeler.path", "labeler.faces", "labeler.detector", "labeler.groups",
    "attribute.name", "attribute.options",
)  # fmt: skip
JUDGING = (
    "judge.kind", "judge.model", "judge.path", "judge.faces", "judge.detector", "judge.groups",
    "evaluate.clip.model", "evaluate.clip.path", "evaluate.drift", "evaluate.bootstrap", "evaluate.images_per_prompt",
    "evaluate.fd", "evaluate.reference", "evaluate.inception", *LABELLING,
)  # fmt: skip
PROBING = (
    "probe.C", "probe.max_iter", "probe.test_share", "probe.group_by_prompt", "probe.shuffle_labels",
    "attribute.name", "seed",
)  # fmt: skip
RECORDING = ("model.sites", "timesteps.start", "timesteps.count")


def _activations(settings: Settings) -> str:
    return "generate" if settings.generate.record else "extract"


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "generate", "make the probe dataset, and record pooled activations in the same pass",
            lambda s: (), (*PROBE_DATASET, "generate.record"), ("model.path",), RECORDING,
            device="model.device", shared=True,
        ),
        Stage("extract", "record pooled activations of the probe dataset on its own",
              lambda s: (), (*PROBE_DATASET, *RECORDING), ("model.path",), device="model.device", shared=True),
        Stage("label", "say what every probe image shows",
              lambda s: ("generate",), LABELLING,
              ("labeler.path", "labeler.model"), device="labeler.device", shared=True),
        Stage("probe", "fit a linear probe per layer and timestep, and its steering vectors",
              lambda s: ("generate", "label") if s.generate.record else ("extract", "generate", "label"),
              PROBING, device="probe.device"),
        Stage("select", "rank the layers and choose those to steer", lambda s: ("probe",), ("layers",)),
        Stage("originals", "make the unsteered evaluation images", lambda s: (), EVALUATION_SET, ("model.path",),
              device="model.device", shared=True),
        Stage("steer", "make the evaluation images again, steered",
              lambda s: ("probe", "select"),
              (*EVALUATION_SET, "alpha", "method", "attribute.name"), ("model.path",),
              device="model.device", shared=True),
        Stage("evaluate", "judge both sets: FD, CLIP-I, obedience, drift",
              lambda s: ("originals", "steer"),
              JUDGING,
              ("judge.path", "judge.model", "evaluate.clip.path", "evaluate.clip.model", "labeler.path",
               "labeler.model", "evaluate.inception"), device="judge.device",
              pictures=("evaluate.reference",)),
        Stage("report", "draw the figures and write the page",
              lambda s: (_activations(s), "label", "probe", "select", "originals", "steer", "evaluate"), (),
              compares=True),
    )
}  # fmt: skip
# The stages that judge folders of images instead of what the pipeline made.
FOLDER_STAGES: dict[str, Stage] = {
    "label": Stage("label", "say what every image of a folder shows", lambda s: (), LABELLING,
                   ("labeler.path", "labeler.model"), device="labeler.device", images=("images",), shared=True),
    "evaluate": Stage("evaluate", "judge a folder of images, beside their unsteered twins if they are given",
                      lambda s: (),
                      (*(name for name in JUDGING if name != "evaluate.images_per_prompt"), "method.target_shares",
                       "seed"),
                      STAGES["evaluate"].weights, device="labeler.device", pictures=STAGES["evaluate"].pictures,
                      images=("images", "reference")),
}  # fmt: skip


def stage_named(name: str, settings: Settings) -> Stage:
    """Return a stage as it is under a configuration."""
    return STAGES[name] if settings.images is None else FOLDER_STAGES[name]


def stages_of(settings: Settings) -> tuple[str, ...]:
    """Return the stages that `stage=all` runs, in order."""
    if settings.images is not None:
        return tuple(FOLDER_STAGES)
    return tuple(name for name in STAGES if name != "extract" or not settings.generate.record)


def check_stage(stage: str, more: tuple[str, ...]) -> None:
    """Raise ConfigError listing the stages if there is none of this name."""
    known = (*STAGES, "all", *more)
    if stage not in known:
        raise ConfigError(f"stage={stage} is not known. Choose one of: {', '.join(known)}.")
