"""Judge images and their unsteered twins: FD per prompt, CLIP-I and CLIP-T, obedience, drift, agreement.

docs/metrics.md says what each figure means and what it cannot tell.
"""

import csv
import logging
from pathlib import Path
from typing import Any

from icm_pipeline.evaluation.files import PerImage, write_files
from icm_pipeline.evaluation.judging import Judging, reference_images
from icm_pipeline.evaluation.likeness import likeness_of
from icm_pipeline.evaluation.measures import agreement_of, figures_of, options_seen, realism_of
from icm_pipeline.evaluation.pairs import pairs_of_folders, pairs_of_pipeline
from icm_pipeline.evaluation.row_cache import RowCache
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.caches import JUDGED
from icm_pipeline.tracking.base import Tracker

log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    settings, attribute, parents = context.settings, context.settings.attribute, context.parents
    if settings.images is None:
        pairs = pairs_of_pipeline(settings, parents["steer"], parents["originals"])
    else:
        pairs = pairs_of_folders(settings)
    folder = settings.evaluate.reference
    reference = None if folder is None else reference_images(Path(folder).expanduser())
    judging = Judging(settings, RowCache(context.folder.parent / JUDGED, context.folder))
    questions = {**pairs.others, attribute.name: attribute.options}
    judged = {
        side: judging.label(pairs.judge.config, pairs.judge.setting, rows, questions)
        for side, rows in pairs.sides.items()
    }
    likeness = likeness_of(judging, pairs)
    metrics = figures_of(settings, pairs, judged, likeness)
    shown = {side: found[attribute.name] for side, found in judged.items()}
    metrics["agreement"] = agreement_of(settings, judging, pairs, shown)
    metrics["reference"] = None if reference is None else realism_of(judging, pairs, reference, settings.seed)
    write_files(
        context.folder, metrics, PerImage(pairs, list(attribute.options), shown, likeness, options_seen(pairs, judged))
    )
    change = f"{metrics['fd_original']['mean']:.3f} to " if metrics["fd_original"] else ""
    parts = [f"FD {change}{metrics['fd']['mean']:.3f}"]
    parts += [f"CLIP-I {metrics['clip_i']:.3f}"] if metrics["clip_i"] is not None else []
    parts += [f"obeyed {metrics['obeyed']:.1%}"] if metrics["obeyed"] is not None else []
    log.info("evaluate: %s", ", ".join(parts))


def show(tracker: Tracker, artifact: Artifact) -> None:
    with artifact.path("metrics.csv").open(newline="", encoding="utf-8") as file:
        rows: list[list[Any]] = [[row["metric"], float(row["value"])] for row in csv.DictReader(file)]
    tracker.metrics(dict(rows))
    tracker.table("evaluate/metrics", ["metric", "value"], rows)
