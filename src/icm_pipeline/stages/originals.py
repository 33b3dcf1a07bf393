"""Make the unsteered evaluation images: the twins of every steered set with the same model, prompts and seeds."""

from functools import cache

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.hooks import hooked
from icm_pipeline.image_sets import IMAGES, SAMPLES, Batch, make_image_set
from icm_pipeline.plots.grid import draw_sheet
from icm_pipeline.prefixes import shared_prefix
from icm_pipeline.prompts import Job
from icm_pipeline.sampling import decode, denoise
from icm_pipeline.stage_table import StageContext
from icm_pipeline.stages.models import evaluation_jobs, load_model, prefix_store


def run(context: StageContext) -> None:
    settings, prefixes = context.settings, prefix_store(context)
    first_step = settings.method.first_step

    @cache
    def backbone_once() -> Backbone:
        return load_model(settings.model)

    def make_batch(jobs: list[Job]) -> Batch:
        backbone = backbone_once()
        ids = [job.image_id for job in jobs]
        with hooked(backbone, [], None, len(jobs)) as clock, shared_prefix(backbone, clock, prefixes, ids, first_step):
            latents = denoise(backbone, jobs)
        return Batch(len(jobs), decode(backbone, jobs, latents))

    complete = make_image_set(
        context.folder,
        evaluation_jobs(settings),
        make_batch,
        settings.model.batch_size,
        settings.generate.shard_size,
        title="originals",
        share=context.share,
        grow=settings.model.grow_batch,
    )
    if complete:
        draw_sheet(context.folder / SAMPLES, context.folder / IMAGES)
