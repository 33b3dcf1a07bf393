"""Nucleus-MoE-Image: image tokens alone in every block, which read the text beside them; guided in two calls."""

from typing import Any

from torch import Tensor

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import decode_film, describe_packed, packed_shape
from icm_pipeline.backbones.sites import JOINT_TEXT


def _to_pixels(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    patch = pipe.transformer.config.patch_size
    unpacked = pipe._unpack_latents(latents, height, width, patch, pipe.vae_scale_factor)
    return decode_film(pipe, unpacked.to(pipe.vae.dtype))


NUCLEUS_IMAGE = Family(
    name="nucleus_image",
    pipelines=("NucleusMoEImagePipeline",),
    sites={"self_attention": r"transformer_blocks\.\d+\.attn", "feed_forward": r"transformer_blocks\.\d+\.img_mlp"},
    text=rf".*\.encoder_proj(\..*)?|{JOINT_TEXT}",
    describe=describe_packed,
    timestep=lambda pipe, inputs: inputs["timestep"] * pipe.scheduler.config.num_train_timesteps,
    rows="two calls",
    tokens="image only",
    tokenizer="",  # behind a chat template
    latent_shape=packed_shape,
    pack=lambda pipe, latents: pipe._pack_latents(latents, *latents.shape, pipe.transformer.config.patch_size),
    to_pixels=_to_pixels,
)
