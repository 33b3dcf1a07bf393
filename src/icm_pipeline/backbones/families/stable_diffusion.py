"""Stable Diffusion 1.x, 2.x and XL: a UNet with attn1 (self), attn2 (cross) and ff in every transformer block.

All three give image tokens [b, s, d] before the residual is added. The middle block gives a map, whose tokens are its
places in row order: h of the literature on editing.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import decode_scaled, describe_sample, latent_shape
from icm_pipeline.backbones.sites import CROSS_TEXT


def _upcast(vae: Any) -> Any:
    """Return SDXL's autoencoder, which overflows in float16 and is kept in float32 from the first time on."""
    return vae.to(torch.float32) if vae.dtype == torch.float16 and vae.config.force_upcast else vae


def _decode_xl(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode SDXL's latents, which may also have been scaled and shifted channel by channel."""
    vae = _upcast(pipe.vae)
    latents = latents.to(vae.dtype)
    mean, std = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
    if mean is None or std is None:
        return decode_scaled(pipe, latents, height, width)
    mean, std = (latents.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return vae.decode(latents * std / vae.config.scaling_factor + mean, return_dict=False)[0]


def _decode_kolors(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode Kolors' latents, which are scaled alone, by SDXL's autoencoder."""
    _upcast(pipe.vae)
    return decode_scaled(pipe, latents, height, width)


STABLE_DIFFUSION = Family(
    name="stable_diffusion",
    pipelines=("StableDiffusionPipeline",),
    also=(
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionControlNetImg2ImgPipeline",
        "StableDiffusionControlNetInpaintPipeline",
        "StableDiffusionAdapterPipeline",
        "StableDiffusionDepth2ImgPipeline",
        "StableDiffusionUpscalePipeline",
    ),
    denoiser="unet",
    sites={
        "self_attention": r".*\.transformer_blocks\.\d+\.attn1",
        "cross_attention": r".*\.transformer_blocks\.\d+\.attn2",
        "feed_forward": r".*\.transformer_blocks\.\d+\.ff",
    },
    bottleneck="mid_block",
    text=CROSS_TEXT,
    describe=describe_sample,
    rows="unconditional first",
    tokens="image only",
    default_size=lambda pipe: pipe.unet.config.sample_size * pipe.vae_scale_factor,
    size_step=lambda pipe: pipe.vae_scale_factor,
    latent_shape=latent_shape,
    to_pixels=decode_scaled,
)
SDXL = replace(
    STABLE_DIFFUSION,
    name="sdxl",
    pipelines=("StableDiffusionXLPipeline",),
    also=(
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionXLControlNetPipeline",
        "StableDiffusionXLControlNetImg2ImgPipeline",
        "StableDiffusionXLControlNetInpaintPipeline",
        "StableDiffusionXLControlNetUnionPipeline",
        "StableDiffusionXLControlNetUnionImg2ImgPipeline",
        "StableDiffusionXLControlNetUnionInpaintPipeline",
        "StableDiffusionXLAdapterPipeline",
    ),
    to_pixels=_decode_xl,
)
LATENT_CONSISTENCY = replace(
    STABLE_DIFFUSION,
    name="latent_consistency",
    pipelines=("LatentConsistencyModelPipeline",),
    also=("LatentConsistencyModelImg2ImgPipeline",),
    rows="embedded",
)
KOLORS = replace(
    SDXL,
    name="kolors",
    pipelines=("KolorsPipeline",),
    also=("KolorsImg2ImgPipeline",),
    tokenizer="",  # which pads in front
    to_pixels=_decode_kolors,
)
KOLORS_PAG = replace(KOLORS, name="kolors_pag", pipelines=("KolorsPAGPipeline",), also=(), rows="perturbed")
INSTRUCT_PIX2PIX = replace(  # the rows of the instruction, then of the picture alone, then unconditional ones
    STABLE_DIFFUSION,
    name="instruct_pix2pix",
    pipelines=(),
    also=("StableDiffusionInstructPix2PixPipeline", "StableDiffusionXLInstructPix2PixPipeline"),
    rows="conditional first of two or three",
    latent_shape=None,
    to_pixels=None,
)
PERTURBED = replace(
    STABLE_DIFFUSION,
    name="stable_diffusion_pag",
    pipelines=("StableDiffusionPAGPipeline",),
    also=(
        "StableDiffusionPAGImg2ImgPipeline",
        "StableDiffusionPAGInpaintPipeline",
        "StableDiffusionControlNetPAGPipeline",
        "StableDiffusionControlNetPAGInpaintPipeline",
    ),
    rows="perturbed",
)
PERTURBED_XL = replace(
    SDXL,
    name="sdxl_pag",
    pipelines=("StableDiffusionXLPAGPipeline",),
    also=(
        "StableDiffusionXLPAGImg2ImgPipeline",
        "StableDiffusionXLPAGInpaintPipeline",
        "StableDiffusionXLControlNetPAGPipeline",
        "StableDiffusionXLControlNetPAGImg2ImgPipeline",
    ),
    rows="perturbed",
)
