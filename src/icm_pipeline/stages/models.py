"""From settings to loaded models and jobs, for the stages that need them."""

import logging

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.registry import load_backbone
from icm_pipeline.config import LabelerConfig, Settings
from icm_pipeline.labelers import Labeler, load_labeler
from icm_pipeline.prompts import Job, fill_templates, make_jobs

log = logging.getLogger(__name__)


def backbone_of(settings: Settings) -> Backbone:
    """Load the configured model and say what was loaded."""
    model = settings.model
    if model.num_threads is not None:
        import torch

        torch.set_num_threads(model.num_threads)
    backbone = load_backbone(
        name=model.name,
        family=model.family,
        path=model.path,
        dtype=model.dtype,
        device=model.device,
        num_steps=model.num_steps,
        guidance_scale=model.guidance_scale,
        sites=model.sites,
    )
    log.info("%s loaded from %s on %s: %d sites", model.name, model.path, model.device, len(backbone.sites))
    return backbone


def labeler_of(config: LabelerConfig) -> Labeler:
    return load_labeler(config.kind, config.model, config.path, config.batch_size, config.device)


def probe_jobs(settings: Settings) -> list[Job]:
    """Return the jobs of the probe dataset."""
    prompts = fill_templates(settings.attribute.probe_templates, settings.attribute.probe_subjects)
    return make_jobs(prompts, settings.generate.images_per_prompt, settings.seed, "probe")


def evaluation_jobs(settings: Settings) -> list[Job]:
    """Return the jobs of the evaluation set: the same for the originals and for every way of steering."""
    return make_jobs(
        settings.attribute.evaluation_prompts, settings.evaluate.images_per_prompt, settings.seed, "evaluation"
    )


def recorded_steps(settings: Settings) -> list[int]:
    """Return the denoising steps whose activations are recorded."""
    return list(range(settings.timesteps.first, settings.model.num_steps, settings.timesteps.stride))
