"""Bria 3.2 and FIBO: FLUX's blocks, guided in one call; FIBO gives every block a text of its own.

FIBO's editing pipeline puts the tokens of its pictures behind the image's.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.families.flux import FLUX, FLUX_KONTEXT
from icm_pipeline.backbones.latents import decode_film, latent_shape
from icm_pipeline.backbones.sites import JOINT_TEXT


def _latent_shape(pipe: Any, height: int, width: int) -> tuple[int, ...]:
    """Return the shape before packing: the pipeline's factor is that of its tokens, of two places a side."""
    factor = pipe.vae_scale_factor
    return pipe.transformer.config.in_channels // 4, 2 * (height // factor), 2 * (width // factor)


def _to_pixels(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    unpacked, config = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor), pipe.vae.config
    scaled = unpacked.to(torch.float32) / config.scaling_factor + config.shift_factor
    return pipe.vae.decode(scaled.to(pipe.vae.dtype), return_dict=False)[0]


def _fibo_to_pixels(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    unpacked = pipe._unpack_latents_no_patch(latents, height, width, pipe.vae_scale_factor)
    return decode_film(pipe, unpacked.unsqueeze(2))


BRIA = replace(
    FLUX,
    name="bria",
    pipelines=("BriaPipeline",),
    also=(),
    timestep=lambda pipe, inputs: inputs["timestep"],
    rows="unconditional first",
    gate=None,
    tokenizer="tokenizer",
    size_step=lambda pipe: pipe.vae_scale_factor,
    latent_shape=_latent_shape,
    to_pixels=_to_pixels,
)
BRIA_FIBO = replace(
    FLUX_KONTEXT,
    name="bria_fibo",
    pipelines=("BriaFiboPipeline",),
    also=("BriaFiboEditPipeline",),
    text=rf"caption_projection(\..*)?|{JOINT_TEXT}",
    timestep=BRIA.timestep,
    rows="unconditional first",
    gate=None,
    tokenizer="tokenizer",
    size_step=BRIA.size_step,
    latent_shape=latent_shape,
    pack=lambda pipe, latents: pipe._pack_latents_no_patch(latents, *latents.shape),
    to_pixels=_fibo_to_pixels,
    arguments=BRIA.arguments,
)
