"""Make images of prompts that name an option, without the method and with it, and ask the judge whether they keep it.

Where an option is drawn for each image, it is another one than the prompt names. Beside that, what an image costs: both
are made by one job, batch by batch in turns.
"""

import logging
from statistics import median

import numpy as np

from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.judging import Judging
from icm_pipeline.evaluation.row_cache import RowCache
from icm_pipeline.generation.named import explicit_jobs, other_options
from icm_pipeline.images.table import read_made
from icm_pipeline.methods.registry import method_named
from icm_pipeline.metrics.outcomes import share_obeying
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.results.bench import ExplicitPrompts
from icm_pipeline.results.effects import UNSTEERED
from icm_pipeline.stages.arms import pushed_work
from icm_pipeline.stages.ways import Way, by_prompt, make_ways, strengthened
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.caches import judged_folder
from icm_pipeline.tracking.base import Tracker

CHANGED = "changed"
log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    settings = strengthened(context.settings, context.parents)
    method, attribute = method_named(settings.method.name), settings.attribute
    made, named = explicit_jobs(settings)
    named_in = {job.image_id: option for job, option in zip(made, named, strict=True)}
    jobs, names = by_prompt(method, made), list(attribute.options)
    named = [named_in[job.image_id] for job in jobs]
    others = [names[index] for index in other_options(settings, named)] if method.draws(settings) else []
    pace = make_ways(context, "explicit", jobs, [Way(UNSTEERED, settings), Way(CHANGED, settings, others)], paced=True)
    if pace is None:
        return
    judging = Judging(settings, RowCache(judged_folder(context.folder), context.folder))
    asked = {attribute.name: attribute.options}
    rows = {row.image_id: row for row in read_made(context.folder)}
    in_order = [rows[f"{way}-{job.image_id}"] for way in (UNSTEERED, CHANGED) for job in jobs]
    seen = judging.label(settings.judge, "judge", in_order, asked)[attribute.name]
    before, after = seen.reshape(2, len(jobs), -1)
    wanted = np.array([names.index(option) for option in named])
    kept = share_obeying(after, wanted)
    pairs = pace.pairs(CHANGED, UNSTEERED)
    seconds, unsteered = map(median, zip(*pairs, strict=True)) if pairs else (None, None)
    more = [changed - plain for changed, plain in pairs] or None
    found = ExplicitPrompts(len(jobs), kept, share_obeying(before, wanted), seconds, unsteered, more)
    found.write(context.folder)
    log.info("explicit: %.0f %% of %d images show what their prompts name", 100 * kept, len(jobs))


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    return pushed_work(settings, 2 * len(explicit_jobs(settings)[0]))


def show(tracker: Tracker, artifact: Artifact) -> None:
    found = ExplicitPrompts.read(artifact)
    tracker.metrics({"explicit/kept": found.kept, "explicit/kept_unsteered": found.kept_unsteered})
