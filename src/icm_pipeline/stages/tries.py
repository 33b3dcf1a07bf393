"""Images that are steered on trial, where more are than have to change, and which of them are taken (method.tries)."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from icm_pipeline.arrays import Ints
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.images.pictures import read_picture
from icm_pipeline.images.table import IMAGES, read_table
from icm_pipeline.methods.sparing import least_changed, tried_options
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.metrics.structure import mean_difference
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.assigned import Assigned
from icm_pipeline.stages.judged import judged

log = logging.getLogger(__name__)


def tried_of(settings: Settings, jobs: list[Job], assigned: Mapping[str, Assigned]) -> dict[str, str]:
    """Return the option that each image is steered to, by the id of those that are."""
    if settings.method.tries == 1:
        return {job.image_id: image.option for job in jobs if (image := assigned[job.image_id]).is_steered}
    names = list(settings.attribute.options)
    prompts, shown, wanted = _indices(jobs, assigned, names)
    options = tried_options(prompts, shown, wanted, settings.method.tries, settings.seed)
    return {job.image_id: names[option] for job, option in zip(jobs, options, strict=True) if option >= 0}


def taken_of(
    context: StageContext, jobs: list[Job], assigned: Mapping[str, Assigned], tried: Mapping[str, str]
) -> dict[str, Assigned]:
    """Return what becomes of each image that was tried: as many change as were to, those that turned and changed least.

    The labeler says what turned; the change is the mean distance of the pixels.
    """
    names, originals = list(context.settings.attribute.options), read_table(context.parents["originals"])
    before = {row.image_id: row for row in originals}
    after = [replace(before[job.image_id], path=context.folder / IMAGES / f"{job.image_id}.png") for job in jobs]
    prompts, shown, wanted = _indices(jobs, assigned, names)
    options = np.array([names.index(tried[job.image_id]) for job in jobs])
    turned = hard_labels(judged(context, after)) == options
    pairs = [(before[row.image_id], row) for row in after]
    change = np.array([mean_difference(*(np.asarray(read_picture(row.path)) for row in pair)) for pair in pairs])
    chosen = least_changed(prompts, shown, wanted, options, turned, change)
    taken = chosen != shown
    log.info("steer: %d of %d tries are taken, %d of which turned", taken.sum(), len(jobs), (taken & turned).sum())
    return {
        job.image_id: Assigned(names[option], assigned[job.image_id].shown, tried[job.image_id], bool(has_turned))
        for job, option, has_turned in zip(jobs, chosen, turned, strict=True)
    }


def _indices(jobs: list[Job], assigned: Mapping[str, Assigned], names: list[str]) -> tuple[list[int], Ints, Ints]:
    """Return the prompt of each image, and the indices of what it shows and of what it is to show, -1 for none."""
    images, index = [assigned[job.image_id] for job in jobs], {name: place for place, name in enumerate(names)}
    shown = np.array([index.get(image.shown, -1) for image in images])
    wanted = np.array([index.get(image.option, -1) for image in images])
    return [job.prompt_index for job in jobs], shown, wanted
