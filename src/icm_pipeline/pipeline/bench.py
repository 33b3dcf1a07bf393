"""Of the stages of a bench: what they depend on."""

from icm_pipeline.config.schema import Settings
from icm_pipeline.methods.registry import method_named
from icm_pipeline.pipeline.reads import JUDGE, LABELLING, MODEL, NAMED, under


def read_by_method(settings: Settings) -> tuple[str, ...]:
    """Return what a method's images depend on, beside the model and the jobs."""
    others = method_named(settings.method.name).reads
    return ("alpha", "method", *(name for name in others if name.split(".")[0] not in ("alpha", "method")))


def trying(settings: Settings) -> tuple[str, ...]:
    """Return what the choice of a strength depends on; on evaluation prompts as it tries no subject of theirs."""
    return (
        *MODEL, *read_by_method(settings), *LABELLING, "method.strength", "method.strengths", "bench.clip_i", "seed",
        *under("evaluate", "clip.model", "clip.path", "fd"),
        *under("attribute", "probe_templates", "probe_subjects", "trial_subjects", "evaluation_prompts"),
        *under(f"bench.sizes.{settings.bench.size}", "tuning_prompts", "tuning_images"),
    )  # fmt: skip


def trying_named(settings: Settings) -> tuple[str, ...]:
    """Return what images of prompts that name an option, and what the judge sees in them, depend on."""
    return (
        *MODEL, *read_by_method(settings), *NAMED, *under("judge", *JUDGE, "groups"), "seed",
        *under("attribute", "name", "options"),
        *under(f"bench.sizes.{settings.bench.size}", "named_prompts", "named_images"),
    )  # fmt: skip


def is_tried_on_named(settings: Settings) -> bool:
    """Say whether a bench tries prompts that name an option; least change leaves their images alone."""
    is_asked = settings.bench.included or settings.stage == "explicit"
    is_steered = settings.method.assignment != "least_change"
    return is_asked and is_steered and settings.images is None and bool(settings.attribute.named)
