"""Krea 2: one sequence with the text first; guidance is on above 0, in a second call."""

from typing import Any

from torch import Tensor

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import decode_film, describe_packed, pack


def _latent_shape(pipe: Any, height: int, width: int) -> tuple[int, ...]:
    factor = pipe.vae_scale_factor
    return pipe.transformer.config.in_channels // pipe.patch_size**2, height // factor, width // factor


def _to_pixels(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    return decode_film(pipe, pipe._unpack_latents(latents, height, width).to(pipe.vae.dtype))


KREA2 = Family(
    name="krea2",
    pipelines=("Krea2Pipeline",),
    sites={"self_attention": r"transformer_blocks\.\d+\.attn", "feed_forward": r"transformer_blocks\.\d+\.ff"},
    text=r"(text_fusion|txt_in)(\..*)?",
    describe=describe_packed,
    timestep=lambda pipe, inputs: inputs["timestep"] * pipe.scheduler.config.num_train_timesteps,
    rows="two calls",
    tokens={r"transformer_blocks\..*": "image last", ".*": "image only"},
    shared_inputs=("position_ids",),
    tokenizer="",  # behind a chat template
    default_size=lambda pipe: 1024,
    size_step=lambda pipe: pipe.vae_scale_factor * pipe.patch_size,
    latent_shape=_latent_shape,
    pack=pack,
    to_pixels=_to_pixels,
)
