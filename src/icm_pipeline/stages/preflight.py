"""What a run is refused for before it begins, instead of hours later by the stage that meets it; no model is loaded."""

from collections.abc import Sequence
from pathlib import Path

from icm_pipeline.config import EvaluateConfig, LabelerConfig, Settings, value_at
from icm_pipeline.labelers import refuse_unanswerable
from icm_pipeline.labelers.base import Questions
from icm_pipeline.metrics.realism import require_library
from icm_pipeline.stage_table import stage_named
from icm_pipeline.stages.models import check_device, naming_its_group

# Stages before which judges are looked at: those that ask them, and the making of a probe dataset, which is for them.
# Evaluation images alone are made for whoever wants them.
LABELLED = {"generate", "extract", "label"}
JUDGED = {"generate", "extract", "evaluate"}


def refuse_unusable(settings: Settings, names: Sequence[str]) -> None:
    """Raise what the stages of these names, or those after them, would for what is not there.

    That is a device, weights, a package, a folder, or an option that a judge cannot tell.
    """
    for name in names:
        stage = stage_named(name, settings)
        if stage.device is not None and not (stage.shared and settings.devices):
            check_device(str(value_at(settings, stage.device)), stage.device)
    if settings.images is not None:  # its stages look at their judges first
        return
    own = {settings.attribute.name: settings.attribute.options}
    if LABELLED.intersection(names):
        refuse_judge(settings.labeler, "labeler", own)
    if JUDGED.intersection(names):
        drifting = {other.name: other.options for other in settings.evaluate.drift.values()}
        refuse_judge(settings.judge, "judge", drifting | own)
        refuse_judge(settings.evaluate.clip, "evaluate.clip", {})
        refuse_reference(settings.evaluate)
    if "evaluate" in names:
        check_device(settings.evaluate.clip.device, "evaluate.clip.device")


def refuse_judge(judge: LabelerConfig, setting: str, questions: Questions) -> None:
    """Raise what asking a judge would, without loading it; `setting` is the name of its group."""
    with naming_its_group(setting):
        refuse_unanswerable(judge.kind, judge.model, judge.path, judge.groups, questions, judge.faces, judge.detector)


def refuse_reference(evaluate: EvaluateConfig) -> None:
    """Raise what FID and KID would for a library or a checkpoint that is not there."""
    if evaluate.reference is not None:
        require_library()
    if evaluate.inception is not None and not Path(evaluate.inception).expanduser().is_file():
        raise ValueError(
            f"evaluate.inception={evaluate.inception} does not exist; give a checkpoint of FID's Inception."
        )
