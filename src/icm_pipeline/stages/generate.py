"""Make the probe dataset: ambiguous prompts, one seed per image, activations pooled in the same denoising pass."""

from functools import cache

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.loaded import load_model
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch
from icm_pipeline.generation.jobs import Job, probe_jobs, recorded_steps
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.localization.selection import LayerScore, select_layers
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.stages.image_sets import make_images


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


def refuse_layers(settings: Settings, backbone: Backbone) -> None:
    """Raise ValueError, before hours of generating, for layers that do not exist."""
    layers = settings.layers
    unscored = [LayerScore(site.layer, site.kind, 0.0) for site in backbone.sites]
    select_layers(unscored, layers.kind, layers.rule, layers.k, layers.names, layers.seed)
