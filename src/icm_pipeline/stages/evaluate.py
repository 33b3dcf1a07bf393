"""Judge images and their unsteered twins: FD per prompt, CLIP-I and CLIP-T, obedience, drift, agreement.

docs/metrics.md says what each figure means and what it cannot tell.
"""

import logging
from pathlib import Path

from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.files import write_files
from icm_pipeline.evaluation.judging import Judging, reference_images
from icm_pipeline.evaluation.measures import agreement_of, figures_of, judged_images, realism_of
from icm_pipeline.evaluation.pairs import pairs_of_folders, pairs_of_pipeline
from icm_pipeline.evaluation.row_cache import RowCache
from icm_pipeline.generation.jobs import evaluation_jobs
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.results.evaluation import Evaluation
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.caches import judged_folder
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
    judging = Judging(settings, RowCache(judged_folder(context.folder), context.folder))
    images = judged_images(settings, judging, pairs, {**pairs.others, attribute.name: attribute.options})
    agreement = agreement_of(settings, judging, pairs, images)
    realism = None if reference is None else realism_of(judging, pairs, reference, settings.seed)
    evaluation = figures_of(settings, pairs, images, agreement, realism)
    write_files(context.folder, evaluation, images, pairs.others)
    before, clip_i, obeyed = evaluation.fairness.fd_original, evaluation.clip_i, evaluation.obeyed
    parts = [f"FD {f'{before.mean:.3f} to ' if before else ''}{evaluation.fairness.fd.mean:.3f}"]
    parts += [f"CLIP-I {clip_i:.3f}"] if clip_i is not None else []
    parts += [f"obeyed {obeyed:.1%}"] if obeyed is not None else []
    log.info("evaluate: %s", ", ".join(parts))


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    return Workload(num_images=2 * len(evaluation_jobs(settings)))


def show(tracker: Tracker, artifact: Artifact) -> None:
    rows = Evaluation.read(artifact).rows()
    tracker.metrics(dict(rows))
    tracker.table("evaluate/metrics", ["metric", "value"], list(map(list, rows)))
