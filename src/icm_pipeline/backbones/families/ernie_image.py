"""ERNIE-Image: one sequence with the image first, rows before places in attention alone.

Its pipeline prepares its latents inside of its call, so the number of images has to be given.
"""

from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_patches, latent_shape

EPSILON = 1e-5  # which the pipeline takes in the place of its autoencoder's batch_norm_eps


def _to_pixels(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode patches, which were scaled channel by channel."""
    norm = pipe.vae.bn
    mean, std = (each.view(1, -1, 1, 1) for each in (norm.running_mean, torch.sqrt(norm.running_var + EPSILON)))
    return pipe.vae.decode(pipe._unpatchify_latents(latents * std.to(latents) + mean.to(latents)), return_dict=False)[0]


ERNIE_IMAGE = Family(
    name="ernie_image",
    pipelines=("ErnieImagePipeline",),
    sites={"self_attention": r"layers\.\d+\.self_attention"},
    text=r"text_proj(\..*)?",
    describe=describe_patches,
    rows="unconditional first",
    tokens="image first",
    default_size=lambda pipe: 1024,
    size_step=lambda pipe: pipe.vae_scale_factor,
    latent_shape=latent_shape,
    to_pixels=_to_pixels,
    options={"use_pe": False},  # which rewrites prompts with words drawn from torch's one generator
)
