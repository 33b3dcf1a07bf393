"""Fit what foretells from the activations of early steps which option a finished image will show."""

import logging

import numpy as np

from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import probe_jobs, recorded_steps, steps_to_read
from icm_pipeline.images.activations import read_activations, read_recording
from icm_pipeline.localization.foretelling import (
    MEMORY,
    fit_foretellings,
    layers_to_read,
    memory_of_step,
)
from icm_pipeline.localization.probes import give_memory_back
from icm_pipeline.machine.threads import num_cores
from icm_pipeline.methods.fitting import reader_of
from icm_pipeline.methods.readers import FILE_NAME, GOOD_ENOUGH, Reader, load_readers, reader_at, save_readers
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import FLOAT_BYTES, Workload, width_sum
from icm_pipeline.progress import working
from icm_pipeline.results.foretelling import Foretold, Reading
from icm_pipeline.stages.learning_set import learning_set
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import Tracker

log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    settings, device = context.settings, context.settings.probe.device
    options = list(settings.attribute.options)
    source, labels, prompts = learning_set(context)
    seen = labels >= 0
    if settings.probe.shuffle_labels:
        labels[seen] = np.random.default_rng(settings.seed).permutation(labels[seen])
    recording = read_recording(source)
    early = steps_to_read(recording.steps, settings.model.num_steps)
    if not early:
        raise ValueError(
            f"No recorded step lies in the first half of the {settings.model.num_steps} steps, where foretelling pays: "
            f"the first is {recording.steps[0]}. Record earlier ones (timesteps=all)."
        )
    fits = fit_foretellings(
        lambda layer: read_activations(source, recording.files[layer]), layers_to_read(recording.kinds), early, labels,
        seed=settings.seed, groups=prompts if settings.probe.group_by_prompt else None, device=device, names=options,
    )  # fmt: skip
    readers: list[Reader] = []
    readings: list[Reading] = []
    with working("foretell", len(early), "step") as work:
        for index, found in zip(early, fits, strict=True):
            readers.append(reader_of(found, recording, index))
            how_well = (found.accuracy, found.calibration_error, len(found.weights), found.C)
            readings.append(Reading(recording.steps[index], *how_well))
            work.advance()
    give_memory_back(device)
    save_readers(readers, context.folder / FILE_NAME)
    foretold = Foretold(int(seen.sum()), float(np.bincount(labels[seen]).max() / seen.sum()), readings)
    foretold.write(context.folder)
    log.info("foretell: on %d images, chance %.3f: %s", foretold.num_images, foretold.chance, _verdict(readings))


def check(settings: Settings, artifact: Artifact) -> None:
    """Refuse to go on where no reader does what method.look asks for."""
    reader_at(load_readers(artifact.path(FILE_NAME)), settings.method.look, settings.method.first_step)


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    """A step for each core is in memory; at most readers of all layers are kept."""
    if outline is None:
        return Workload(values=None, stored=None, memory=None)
    num_images, steps, total_width = len(probe_jobs(settings)), recorded_steps(settings), width_sum(outline)
    num_steps = len(steps_to_read(steps, settings.model.num_steps))
    stored = FLOAT_BYTES * num_steps * len(settings.attribute.options) * total_width
    needed = memory_of_step(num_images)
    memory = needed * max(1, min(num_cores(), MEMORY // needed)) + stored
    return Workload(num_images=num_images, values=num_images * num_steps * total_width, stored=stored, memory=memory)


def show(tracker: Tracker, artifact: Artifact) -> None:
    foretold = Foretold.read(artifact)
    tracker.metrics({f"foretell/accuracy/{row.step}": row.accuracy for row in foretold.readings})
    tracker.metrics({"foretell/chance": foretold.chance})
    names = ["step", "accuracy", "calibration error", "layers"]
    rows = [[row.step, row.accuracy, row.calibration_error, row.num_layers] for row in foretold.readings]
    tracker.table("foretell/readings", names, rows)


def _verdict(readings: list[Reading]) -> str:
    """Say from which step the reading is good enough, or that it is at none."""
    for row in readings:
        if row.accuracy >= GOOD_ENOUGH:
            return f"right in {row.accuracy:.1%} after {row.step + 1} steps, by {row.num_layers} layers"
    best = max(readings, key=lambda row: row.accuracy)
    return (
        f"good enough ({GOOD_ENOUGH:.0%}) after none of the first {readings[-1].step + 1} steps, at best right in "
        f"{best.accuracy:.1%} after {best.step + 1} steps, by {best.num_layers} layers"
    )
