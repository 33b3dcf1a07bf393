"""What a run is refused for before it begins, instead of hours later by the stage that meets it; no model is loaded."""

from collections.abc import Sequence

from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.backbones.parts import check_model, folder_index
from icm_pipeline.config.schema import Settings
from icm_pipeline.config.values import value_at
from icm_pipeline.evaluation.judging import check_reference
from icm_pipeline.labelers.registry import check_labeler
from icm_pipeline.machine.devices import check_device
from icm_pipeline.methods.registry import method_named
from icm_pipeline.pipeline.stage import Stage
from icm_pipeline.pipeline.table import STAGES
from icm_pipeline.zoo.paths import local_folder

STEERING = ("fit", "tune", "strength", "steer", "explicit")  # the stages in which the method meets the model


def check_usable(settings: Settings, names: Sequence[str]) -> None:
    """Raise what the stages of these names, or those after them, would for what is not there.

    That is a device, weights that are missing or not whole, a package, a folder, or an option that a judge cannot tell.
    """
    stages = [STAGES[name] for name in names]
    _check_devices(settings, [stage for stage in stages if not (stage.shared and settings.devices)])
    if any("compute.device" in stage.devices(settings) for stage in stages):
        check_model(settings.model)
    check_family(settings, names)
    if settings.images is not None:  # its stages look at their judges first
        return
    asked = {judge for stage in stages for judge in stage.asks(settings)}
    own = {settings.attribute.name: settings.attribute.options}
    if "labeler" in asked:
        check_labeler(settings.labeler, "labeler", own)
    if "judge" in asked:
        drifting = {other.name: other.options for other in settings.evaluate.drift.values()}
        check_labeler(settings.judge, "judge", drifting | own)
        check_labeler(settings.evaluate.clip, "evaluate.clip", {})
        check_reference(settings.evaluate)


def check_family(settings: Settings, names: Sequence[str]) -> None:
    """Refuse a method or localizer that the model's family has nothing for, where its folder says which family."""
    method, folder = method_named(settings.method.name), local_folder(settings.model.path)
    asked = {"inject", "contribution", *STEERING} & set(names)
    if not asked or folder is None:
        return
    from icm_pipeline.backbones.registry import family_of  # imports torch
    from icm_pipeline.backbones.text_attention import no_contribution, no_injection

    family = family_of(str(folder_index(folder, settings.model.path).get("_class_name")))
    for stage, why_not in (("inject", no_injection), ("contribution", no_contribution)):
        if stage in asked and (why := why_not(family)):
            raise BackboneError(f"stage={stage} does not apply to {settings.model.name}: {why}")
    if asked & {*STEERING}:
        method.check_family(family, settings.model.name)


def _check_devices(settings: Settings, stages: Sequence[Stage]) -> None:
    """Refuse a device by its setting; where the model's cannot be used, judges and probes on it are left out."""
    for setting in dict.fromkeys(setting for stage in stages for setting in stage.devices(settings)):
        device = str(value_at(settings, setting))
        check_device(device, "compute.device" if device == settings.compute.device else setting)
