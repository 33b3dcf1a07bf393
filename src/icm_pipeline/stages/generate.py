"""Make the probe dataset: ambiguous prompts, one seed per image, activations pooled in the same denoising pass."""

from functools import cache

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.hooks import hooked
from icm_pipeline.image_sets import IMAGES, SAMPLES, Batch, make_image_set
from icm_pipeline.plots.grid import draw_sheet
from icm_pipeline.prompts import Job
from icm_pipeline.recording import Recorder
from icm_pipeline.sampling import decode, denoise
from icm_pipeline.stage_table import StageContext
from icm_pipeline.stages.models import load_model, probe_jobs, recorded_steps, refuse_early


def run(context: StageContext) -> None:
    if make_probe_dataset(context, images=True, record=context.settings.generate.record):
        draw_sheet(context.folder / SAMPLES, context.folder / IMAGES)


def make_probe_dataset(context: StageContext, images: bool, record: bool) -> bool:
    """Denoise every probe job; write its image, its pooled activations, or both; return whether all are there."""
    settings = context.settings
    steps = recorded_steps(settings) if record else []

    @cache
    def backbone_once() -> Backbone:
        backbone = load_model(settings.model)
        refuse_early(settings, backbone)
        return backbone

    def make_batch(jobs: list[Job]) -> Batch:
        backbone, recorder = backbone_once(), Recorder(steps)
        with hooked(backbone, backbone.layers if record else [], recorder, len(jobs)):
            latents = denoise(backbone, jobs)
        samples = decode(backbone, jobs, latents) if images else []
        return Batch(len(jobs), samples, recorder.recording() if record else None)

    return make_image_set(
        context.folder,
        probe_jobs(settings),
        make_batch,
        settings.model.batch_size,
        settings.generate.shard_size,
        title="generate" if images else "extract",
        share=context.share,
        grow=settings.model.grow_batch,
    )
