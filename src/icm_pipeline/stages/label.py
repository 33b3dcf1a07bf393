"""Say what every probe image, or every image of a folder, shows: a probability per option from the labeler."""

import csv
import logging
from collections import Counter

import numpy as np
from safetensors.numpy import load_file, save_file

from icm_pipeline.arrays import spread
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import probe_jobs
from icm_pipeline.images.folders import read_images
from icm_pipeline.images.table import ImageRow, Pictures, read_table
from icm_pipeline.labelers.registry import load_labeler
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.progress import working
from icm_pipeline.results.labels import LABELS
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.files import written_whole
from icm_pipeline.store.shards import Shard, num_items, plan_shards
from icm_pipeline.tracking.base import Tracker

log = logging.getLogger(__name__)

PROBABILITIES = "probabilities"  # of a shard: [images, options], float64


def run(context: StageContext) -> None:
    settings, attribute = context.settings, context.settings.attribute
    of_folder = settings.images is not None
    rows = read_images(settings, "images") if of_folder else read_table(context.parents["generate"])
    shards = _label(context, [row for row in rows if not row.problem])
    if context.share.count > 1:
        return
    seen = np.concatenate([load_file(shard.tensors)[PROBABILITIES] for shard in shards])
    probabilities = spread([not row.problem for row in rows], seen)
    options, labels = list(attribute.options), hard_labels(probabilities)
    with (context.folder / LABELS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "option", *options, *(["problem"] if of_folder else [])])
        for row, label, probability in zip(rows, labels, probabilities, strict=True):
            cells = [row.image_id, options[label] if label >= 0 else "", *(f"{p:.6f}" for p in probability)]
            writer.writerow(cells + ([row.problem] if of_folder else []))
    counts = {option: int((labels == index).sum()) for index, option in enumerate(options)}
    unseen = int((labels < 0).sum())
    log.info("label: %s%s", counts, f", {unseen} not recognisable" if unseen else "")


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    return Workload(num_images=len(probe_jobs(settings)))


def show(tracker: Tracker, artifact: Artifact) -> None:
    with artifact.path(LABELS).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    options = list(artifact.manifest.config["attribute.options"])
    counts = Counter(row["option"] for row in rows)
    confidences = [max(float(row[option]) for option in options) for row in rows if row["option"]]
    tracker.metrics({f"label/{option}": counts[option] / len(rows) for option in options})
    if confidences:
        tracker.metrics({"label/confidence": sum(confidences) / len(confidences)})


def _label(context: StageContext, rows: list[ImageRow]) -> list[Shard]:
    """Ask the labeler about a share of the images, shard by shard; return the whole shards, with probabilities each."""
    settings, attribute = context.settings, context.settings.attribute
    batch_size, ids = settings.labeler.batch_size, [row.image_id for row in rows]
    shards = plan_shards(context.folder, ids, context.share, batch_size, settings.generate.shard_size)
    if all(shard.table for shard in shards):
        return shards
    labeler = load_labeler(settings.labeler)
    questions = {attribute.name: attribute.options}
    with working("label", num_items(shards), "image", done=num_items(shards, made=True)) as work:
        for number, shard in enumerate(shards):
            if not shard.table:
                found = labeler.label(Pictures(rows[shard.start : shard.stop]), questions)[attribute.name]
                with written_whole(shard.tensors) as partial:
                    save_file({PROBABILITIES: found}, partial)
                shards[number] = shard.keep(ids, [shard.tensors], {})
                work.advance(shard.stop - shard.start)
    return shards
