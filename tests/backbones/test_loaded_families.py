"""Classes that a run can load beside those of test_families: what it makes is what the pipeline would have made."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ChromaPipeline, LCMScheduler, SCMScheduler

from icm_pipeline.backbones.registry import PIPELINES
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import decode, denoise
from tests.helpers.denoisers import TINY
from tests.helpers.models import load
from tests.helpers.pipelines import autoencoder, build
from tests.helpers.tiny import build as build_tiny
from tests.helpers.with_picture import of_class


def chroma() -> Any:
    parts, transformer = build("flux").components, build_tiny(TINY["chroma"]).transformer
    return ChromaPipeline(
        scheduler=parts["scheduler"], vae=parts["vae"], text_encoder=parts["text_encoder_2"],
        tokenizer=parts["tokenizer_2"], transformer=transformer,
    )  # fmt: skip


def on(name: str, parts_of: str) -> Any:
    """Return a tiny denoiser's pipeline with the text encoder of a whole one."""
    parts, pipe = build(parts_of).components, build_tiny(TINY[name])
    return type(pipe)(
        transformer=pipe.transformer, scheduler=pipe.scheduler, vae=autoencoder(4, shift=0.1),
        text_encoder=parts["text_encoder"], tokenizer=parts["tokenizer"],
    )  # fmt: skip


def with_scheduler(pipe: Any, scheduler: Any) -> Any:
    pipe.scheduler = scheduler
    return pipe


CLASSES = {
    "ChromaPipeline": (chroma, 16),
    "AuraFlowPipeline": (lambda: on("auraflow", "pixart"), 16),
    "CogView3PlusPipeline": (lambda: on("cogview3plus", "pixart"), 16),
    "Lumina2Pipeline": (lambda: on("lumina2", "sana"), 16),
    "PixArtAlphaPipeline": (lambda: of_class(build("pixart"), "PixArtAlphaPipeline"), 16),
    "LatentConsistencyModelPipeline": (
        lambda: with_scheduler(of_class(build("sd"), "LatentConsistencyModelPipeline"), LCMScheduler()), 16,
    ),
    "StableDiffusion3PAGPipeline": (lambda: of_class(build("sd3"), "StableDiffusion3PAGPipeline"), 16),
    "SanaPAGPipeline": (lambda: of_class(build("sana"), "SanaPAGPipeline"), 32),
    "PixArtSigmaPAGPipeline": (lambda: of_class(build("pixart"), "PixArtSigmaPAGPipeline"), 16),
    "SanaSprintPipeline": (lambda: with_scheduler(of_class(build("sana"), "SanaSprintPipeline"), SCMScheduler()), 32),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_what_a_run_makes_is_what_the_pipeline_would_have_made(name: str, tmp_path: Path, jobs: list[Job]) -> None:
    builder, size = CLASSES[name]
    builder().save_pretrained(tmp_path)
    backbone, job = load(tmp_path, size, num_steps=2), jobs[0]
    settings, family = backbone.sampling, backbone.family
    assert settings is not None and family.latent_shape is not None
    assert PIPELINES[name] is family
    ours = decode(backbone, [job], denoise(backbone, [job]))[0].image
    shape = family.latent_shape(backbone.pipe, size, size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(job.seed))[None]
    theirs = backbone.pipe(
        prompt=[job.prompt], latents=family.pack(backbone.pipe, noise), num_inference_steps=2,
        guidance_scale=settings.guidance_scale, height=size, width=size,
        generator=[torch.Generator().manual_seed(job.seed + 2**31)], **settings.options,
    ).images[0]  # fmt: skip
    assert ours.tobytes() == theirs.tobytes()
