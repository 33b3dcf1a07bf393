"""What the stages that learn from the probe dataset share."""

import numpy as np

from icm_pipeline.arrays import Ints
from icm_pipeline.machine.devices import check_device
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.labels import read_labels
from icm_pipeline.store.artifacts import Artifact


def learning_set(context: StageContext) -> tuple[Artifact, Ints, Ints]:
    """Return what holds the activations, and the label [n] and the prompt [n] of each image, -1 for no label.

    Raises ValueError if too few images show an option, or if there is no such device as the probes'.
    """
    settings, parents = context.settings, context.parents
    check_device(settings.probe.device, "probe.device")
    options = list(settings.attribute.options)
    labels, prompts = read_labels(parents["label"], parents["generate"], options)
    _check_counts(labels[labels >= 0], options, settings.probe.min_per_option)
    return parents.get("extract", parents["generate"]), labels, prompts


def _check_counts(labels: np.ndarray, options: list[str], least: int) -> None:
    """Raise ValueError if too few images show an option."""
    counts = {option: int((labels == index).sum()) for index, option in enumerate(options)}
    rare = [option for option, count in counts.items() if count < least]
    if rare:
        raise ValueError(
            f"A probe needs at least {least} images of every option, found {counts}: too few of {', '.join(rare)}. "
            "Generate more images (generate.images_per_prompt) or use prompts that show it (attribute.probe_subjects)."
        )
