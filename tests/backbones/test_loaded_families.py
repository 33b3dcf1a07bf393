"""Classes that a run can load beside those of test_families: what it makes is what the pipeline would have made."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLQwenImage, ChromaPipeline, LCMScheduler, SCMScheduler
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.registry import PIPELINES
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import decode, denoise
from tests.helpers.denoisers import TINY, flux2_autoencoder
from tests.helpers.models import load
from tests.helpers.pipelines import autoencoder, build
from tests.helpers.tiny import LENGTH, WIDTH, embedded
from tests.helpers.tiny import build as build_tiny
from tests.helpers.with_picture import of_class


def chroma() -> Any:
    parts, transformer = build("flux").components, build_tiny(TINY["chroma"]).transformer
    return ChromaPipeline(
        scheduler=parts["scheduler"], vae=parts["vae"], text_encoder=parts["text_encoder_2"],
        tokenizer=parts["tokenizer_2"], transformer=transformer,
    )  # fmt: skip


def on(name: str, parts_of: str, vae: Any = None) -> Any:
    """Return a tiny denoiser's pipeline with the text encoder of a whole one."""
    parts, pipe = build(parts_of).components, build_tiny(TINY[name])
    return type(pipe)(
        transformer=pipe.transformer, scheduler=pipe.scheduler, vae=vae or autoencoder(4, shift=0.1),
        text_encoder=parts["text_encoder"], tokenizer=parts["tokenizer"],
    )  # fmt: skip


def qwen_autoencoder() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[2.0, 1.5, 1.0, 3.0],
    )  # fmt: skip


def scaled_autoencoder() -> Any:
    """Return FLUX.2's autoencoder with statistics of its channels that are not 0 and 1."""
    vae = flux2_autoencoder()
    vae.bn.running_mean.copy_(torch.linspace(-1, 1, len(vae.bn.running_mean)))
    vae.bn.running_var.copy_(torch.linspace(0.5, 3, len(vae.bn.running_var)))
    return vae


def with_scheduler(pipe: Any, scheduler: Any) -> Any:
    pipe.scheduler = scheduler
    return pipe


CLASSES: dict[str, tuple[Any, ...]] = {  # how it is built, its size, what its calls are given besides
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
    "OvisImagePipeline": (lambda: on("ovis_image", "z_image"), 16),
    "CogView4Pipeline": (lambda: on("cogview4", "sana"), 16, {"negative_prompt": "bad"}),
    "QwenImagePipeline": (
        lambda: on("qwen_image", "z_image", qwen_autoencoder()), 16, {"true_cfg_scale": 3.0, "negative_prompt": "bad"},
    ),
    "Flux2KleinPipeline": (
        lambda: on("flux2_klein", "z_image", scaled_autoencoder()), 16,
        {"max_sequence_length": 32, "text_encoder_out_layers": [1]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_what_a_run_makes_is_what_the_pipeline_would_have_made(name: str, tmp_path: Path, jobs: list[Job]) -> None:
    builder, size, *call = CLASSES[name]
    builder().save_pretrained(tmp_path)
    compare(load(tmp_path, size, num_steps=2, call=call[0] if call else {}), name, jobs[0])


def test_flux2_dev_makes_in_a_run_what_it_makes_of_the_same_embeddings(tmp_path: Path, jobs: list[Job]) -> None:
    on("flux2", "z_image", scaled_autoencoder()).save_pretrained(tmp_path)  # its text encoder is a Mistral of 24 B
    backbone = load(tmp_path, 16, num_steps=2)

    def encode_prompt(prompt: list[str], **more: Any) -> tuple[Tensor, Tensor]:
        embeddings = embedded(prompt, (LENGTH, WIDTH))
        return embeddings, backbone.pipe._prepare_text_ids(embeddings)

    backbone.pipe.encode_prompt = encode_prompt
    compare(backbone, "Flux2Pipeline", jobs[0])


def compare(backbone: Backbone, name: str, job: Job) -> None:
    settings, family = backbone.sampling, backbone.family
    assert settings is not None and family.latent_shape is not None
    size = settings.height
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
