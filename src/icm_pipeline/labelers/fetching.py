"""Whether a CLIP that is named by a tag or an id of the hub can be had: from a cache, or over a network."""

from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.machine.hub import asked_once, hub_answers
from icm_pipeline.zoo.paths import LOCAL_MODEL, local_folder

HUB_MODEL = "hf-hub:"


def check_fetched(config: LabelerConfig, setting: str) -> None:
    """Raise ValueError for a CLIP whose weights are not on this disk while the hub cannot be reached."""
    model, of_hub = config.model, config.model.startswith(HUB_MODEL)
    is_here = model.startswith(LOCAL_MODEL) or (not of_hub and local_folder(config.path) is not None)
    if config.kind != "clip" or is_here or hub_answers():
        return
    from open_clip.pretrained import download_pretrained, download_pretrained_from_hf, get_pretrained_cfg

    try:
        with asked_once():
            if of_hub:
                download_pretrained_from_hf(model.removeprefix(HUB_MODEL))
            else:
                download_pretrained(get_pretrained_cfg(model, config.path))
    except OSError as error:
        named = f"{setting}.model={model}" if of_hub else f"{setting}.path={config.path} of {model}"
        raise ValueError(
            f"{named} is not on this disk, and the hub cannot be reached from here. Give each CLIP a checkpoint "
            "on this disk: labeler.path=<file> judge.path=<file> evaluate.clip.path=<file>."
        ) from error
