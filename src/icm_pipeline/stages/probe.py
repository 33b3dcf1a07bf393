"""Fit a linear probe per layer and timestep, and turn the probes into steering vectors."""

import csv
import logging

import numpy as np
from safetensors.numpy import save_file

from icm_pipeline.config.choices import DIRECTIONS
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.config.values import value_at
from icm_pipeline.generation.jobs import probe_jobs, recorded_steps
from icm_pipeline.images.activations import RecordingTable, read_activations, read_recording
from icm_pipeline.localization import probes
from icm_pipeline.localization.probes import LayerProbes, Split
from icm_pipeline.machine.threads import num_cores
from icm_pipeline.methods.fitting import vectors_of_probes, warn_of_unfinished
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import FLOAT_BYTES, Workload, width_sum
from icm_pipeline.progress import working
from icm_pipeline.results.scores import LayerScores, Scores
from icm_pipeline.stages.learning_set import learning_set
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import Tracker

MADE_WITH = (
    "model.path", "model.revision", "model.variant", "compute.dtype", "model.scheduler", "model.num_steps",
    "model.guidance_scale", "model.height", "model.width",
)  # fmt: skip
log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    settings, device = context.settings, context.settings.probe.device
    options = list(settings.attribute.options)
    source, labels, prompts = learning_set(context)
    seen = np.flatnonzero(labels >= 0)
    rng = np.random.default_rng(settings.seed)
    groups = prompts[seen] if settings.probe.group_by_prompt else None
    split = probes.split_samples(labels[seen], settings.probe.test_share, rng, groups, options)
    split = Split(seen[split.train], seen[split.test])
    if settings.probe.shuffle_labels:
        labels = probes.shuffled_labels(labels, split, rng)
    recording = read_recording(source)

    how, pinned = settings.probe, device.startswith("cuda")
    fits = probes.fit_layers(
        lambda name: read_activations(source, name, pinned), recording.files.values(), labels, split, how.C,
        how.max_iter, device, how.solver,
    )  # fmt: skip
    fitted: dict[str, LayerProbes] = {}
    with working("probe", len(recording.files), "layer") as work:
        for layer, found in zip(recording.files, fits, strict=True):
            fitted[layer] = found
            work.advance()
    probes.give_memory_back(device)
    warn_of_unfinished(fitted, settings.probe.max_iter, "probe.")
    majority = np.bincount(labels[split.train]).argmax()
    chance = float((labels[split.test] == majority).mean())
    layers = {
        layer: LayerScores(recording.kinds[layer], float(p.accuracy.mean()), p.accuracy.tolist())
        for layer, p in fitted.items()
    }
    scores = Scores(recording.steps, chance, len(split.train), len(split.test), layers)
    _write(context, fitted, recording, scores)
    means = {kind: f"{np.mean(values):.3f}" for kind, values in scores.by_kind.items()}
    log.info(
        "probe: %d layers x %d steps on %d + %d images, chance %.3f, mean accuracy %s",
        len(layers), len(scores.steps), len(split.train), len(split.test), chance, means,
    )  # fmt: skip


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    """Weights and biases, a vector per direction and option, and the layers' mean norms are kept.

    A layer for each core is in memory beside them.
    """
    if outline is None:
        return Workload(num_probes=None, values=None, stored=None, memory=None)
    num_images, num_steps = len(probe_jobs(settings)), len(recorded_steps(settings))
    num_layers = sum(outline.num_layers.values())
    num_options, total_width = len(settings.attribute.options), width_sum(outline)
    columns = 1 if num_options == 2 else num_options
    wide = (columns + len(DIRECTIONS) * num_options) * total_width
    narrow = (columns + len(DIRECTIONS)) * num_layers
    kept = FLOAT_BYTES * num_steps * (wide + narrow)
    widest = max(width for pairs in outline.widths.values() for width, _ in pairs)
    memory = kept + num_cores() * num_images * num_steps * widest * FLOAT_BYTES
    values, num_probes = num_images * num_steps * total_width, num_layers * num_steps
    return Workload(num_images=num_images, num_probes=num_probes, values=values, stored=kept, memory=memory)


def show(tracker: Tracker, artifact: Artifact) -> None:
    scores = Scores.read(artifact)
    tracker.metrics({f"probe/accuracy/{layer}": row.score for layer, row in scores.layers.items()})
    means = {f"probe/mean/{kind}": sum(values) / len(values) for kind, values in scores.by_kind.items()}
    tracker.metrics({"probe/chance": scores.chance, **means})
    cells = [
        [layer, row.kind, step, accuracy]
        for layer, row in scores.layers.items()
        for step, accuracy in zip(scores.steps, row.accuracy, strict=True)
    ]
    tracker.table("probe/heat_map", ["layer", "kind", "step", "accuracy"], cells)


def _write(context: StageContext, fitted: dict[str, LayerProbes], recording: RecordingTable, scores: Scores) -> None:
    folder, model, attribute = context.folder, context.settings.model, context.settings.attribute
    weights = {f"weights/{layer}": p.weights.astype(np.float32) for layer, p in fitted.items()}
    weights |= {f"bias/{layer}": p.bias.astype(np.float32) for layer, p in fitted.items()}
    save_file(weights, folder / "probes.safetensors")
    made_with = {dotted.partition(".")[2]: value_at(context.settings, dotted) for dotted in MADE_WITH}
    for direction in DIRECTIONS:
        vectors = vectors_of_probes(
            fitted, direction, recording, list(attribute.options), model.name, attribute.name, made_with
        )
        vectors.save(folder / f"vectors-{direction}.safetensors")
    scores.write(folder)
    rows = [[layer, row.kind, row.score] for layer, row in scores.layers.items()]
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["layer", "kind", "accuracy"], *rows])
