"""Make the probe dataset: ambiguous prompts, one seed per image, activations pooled in the same denoising pass."""

from functools import cache

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.hooks import hooked
from icm_pipeline.image_sets import Batch
from icm_pipeline.prompts import Job
from icm_pipeline.recording import Recorder
from icm_pipeline.sampling import decode, denoise
from icm_pipeline.stage_table import StageContext
from icm_pipeline.stages.models import load_model, make_images, probe_jobs, recorded_steps, refuse_layers


def run(context: StageContext) -> None:
    make_probe_dataset(context, "generate", images=True, record=context.settings.generate.record)


def make_probe_dataset(context: StageContext, title: str, images: bool, record: bool) -> None:
    """Denoise every probe job; write its image, its pooled activations, or both."""
    settings = context.settings
    steps = recorded_steps(settings) if record else []

    @cache
    def loaded() -> Backbone:
        backbone = load_model(settings.model)
        refuse_layers(settings, backbone)
        return backbone

    def make_batch(jobs: list[Job]) -> Batch:
        backbone, recorder = loaded(), Recorder(steps)
        with hooked(backbone, backbone.layers if record else [], recorder, len(jobs)):
            latents = denoise(backbone, jobs)
        samples = decode(backbone, jobs, latents) if images else []
        return Batch(len(jobs), samples, recorder.recording() if record else None)

    make_images(context, title, probe_jobs(settings), make_batch)
