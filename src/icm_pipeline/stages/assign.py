"""Say which option each evaluation image is to show, so that as few as possible have to be changed.

Images whose prompt names an option are left alone, whatever they show.
"""

import logging
from collections import Counter
from collections.abc import Iterator

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.early import ended_after
from icm_pipeline.generation.jobs import Job, evaluation_jobs
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.images.activations import read_recorded
from icm_pipeline.images.table import read_table
from icm_pipeline.methods.assignment import least_change_by_prompt, shares_of_jobs
from icm_pipeline.methods.naming import named_options
from icm_pipeline.methods.readers import FILE_NAME, Reader, load_readers, reader_at
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload, passes_before
from icm_pipeline.results.assigned import Assigned, read_assigned, write_assigned
from icm_pipeline.stages.image_sets import planned, store
from icm_pipeline.stages.judged import judged
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.shards import WHOLE
from icm_pipeline.tracking.base import Tracker

log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    settings, jobs = context.settings, evaluation_jobs(context.settings)
    seen = _judged(context) if settings.method.look is None else _foretold(context, jobs)
    if seen is None:
        return
    names, labels = list(settings.attribute.options), hard_labels(seen)
    free = [not named_options(job.prompt, settings.attribute.words) for job in jobs]
    prompts = [job.prompt_index for job, is_free in zip(jobs, free, strict=True) if is_free]
    options = np.full(len(jobs), -1)
    options[free] = least_change_by_prompt(prompts, seen[free], shares_of_jobs(settings, jobs), settings.seed)
    assigned = [
        Assigned("" if option < 0 else names[option], "" if label < 0 else names[label])
        for option, label in zip(options, labels, strict=True)
    ]
    write_assigned(context.folder, [job.image_id for job in jobs], assigned, seen)
    changes = Counter((image.shown or "none", image.option) for image in assigned if image.is_steered)
    told = ", ".join(f"{count} from {shown} to {option}" for (shown, option), count in changes.items())
    log.info("assign: %d of %d images are to change: %s", changes.total(), len(jobs), told or "none")
    if not all(free):
        log.info("assign: %d images are left alone, as their prompts name an option", free.count(False))


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    num_images, look = len(evaluation_jobs(settings)), settings.method.look
    if look is None:
        return Workload(num_images=num_images)
    steps = settings.model.num_steps // 2 if look == "auto" else look  # later steps have no readers
    return Workload(num_images, passes=num_images * passes_before(steps, settings.model.scheduler))


def _judged(context: StageContext) -> Floats | None:
    """Return what the labeler sees in the originals [n, options], which the evaluation remembers; None of a share."""
    if context.share != WHOLE:
        return None
    return judged(context, read_table(context.parents["originals"]))


def _foretold(context: StageContext, jobs: list[Job]) -> Floats | None:
    """Return what the activations of an early step foretell of each image [n, options]; None of a share of them."""
    settings = context.settings
    reader = reader_at(
        load_readers(context.parents["foretell"].path(FILE_NAME)), settings.method.look, settings.method.first_step
    )
    images = planned(context, jobs)
    if not store(images, _read(context, reader, images.missing), "assign"):
        return None
    _, activations = read_recorded(context.folder)
    return reader.probabilities({layer: found[:, 0] for layer, found in activations.items()})


def _read(context: StageContext, reader: Reader, missing: Iterator[list[Job]]) -> Iterator[Batch]:
    """Yield the activations of the step that is read, batch by batch; each run ends after it."""
    settings = context.settings
    backbone = context.models.load(settings.model, settings.compute).with_layers(reader.layers)

    def make(jobs: list[Job]) -> Batch:
        recorder = Recorder([reader.step])
        with (
            hooked(backbone, reader.layers, recorder, len(jobs)) as clock,
            ended_after(backbone, clock, reader.step + 1),
        ):
            denoise(backbone, jobs)
        return Batch(jobs, [], recorder.recording())

    yield from fitting(missing, make, settings.compute.batch_size, settings.compute.grow_batch)


def show(tracker: Tracker, artifact: Artifact) -> None:
    images = read_assigned(artifact).values()
    changes = Counter((image.shown or "none", image.option) for image in images if image.is_steered)
    tracker.metrics({"assign/num_to_change": changes.total(), "assign/num_images": len(images)})
    rows = [[shown, option, count] for (shown, option), count in changes.items()]
    tracker.table("assign/changes", ["shown", "to show", "images"], rows)
