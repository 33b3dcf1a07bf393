"""What a run is refused for before it begins, instead of hours later by the stage that meets it; no model is loaded."""

from collections.abc import Sequence

from icm_pipeline.config.schema import Settings, value_at
from icm_pipeline.evaluation.judging import refuse_reference
from icm_pipeline.labelers.registry import refuse_judge
from icm_pipeline.machine.devices import check_device
from icm_pipeline.pipeline.table import stage_named

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
