"""FLUX.2: FLUX's two kinds of blocks; a single one has attention and feed-forward in one, and gives one sequence.

FLUX.2-dev has guidance as an input, Klein guides in two calls where it is not distilled. Tokens of reference pictures,
which each may be given, are left alone. Klein KV puts them in front of the image, in the first step alone.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_references, packed_shape
from icm_pipeline.backbones.sites import JOINT_TEXT


def _to_pixels(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode latents as FLUX.2-dev's pipeline gives them: packed, and scaled channel by channel."""
    step, norm = 2 * pipe.vae_scale_factor, pipe.vae.bn
    grid = latents.transpose(1, 2).unflatten(2, (height // step, width // step))
    mean, std = norm.running_mean, torch.sqrt(norm.running_var + pipe.vae.config.batch_norm_eps)
    mean, std = (each.view(1, -1, 1, 1).to(grid.device, grid.dtype) for each in (mean, std))
    return _decode(pipe, pipe._unpatchify_latents(grid * std + mean), height, width)


def _decode(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode latents as Klein's pipeline gives them: the autoencoder's own."""
    return pipe.vae.decode(latents.to(pipe.vae.dtype), return_dict=False)[0]


FLUX2 = Family(
    name="flux2",
    pipelines=("Flux2Pipeline",),
    sites={
        "self_attention": r"(single_)?transformer_blocks\.\d+\.attn",
        "feed_forward": r"transformer_blocks\.\d+\.ff",
    },
    text=JOINT_TEXT,
    tokenizer="",  # behind a chat template
    describe=describe_references,
    timestep=lambda pipe, inputs: inputs["timestep"] * 1000,
    rows="embedded",
    tokens={r"single_transformer_blocks\..*": "text first, references last", ".*": "pair, references last"},
    latent_shape=packed_shape,
    pack=lambda pipe, latents: pipe._patchify_latents(latents),
    to_pixels=_to_pixels,
)
FLUX2_KLEIN = replace(
    FLUX2,
    name="flux2_klein",
    pipelines=("Flux2KleinPipeline",),
    also=("Flux2KleinInpaintPipeline",),
    rows="two calls",
    to_pixels=_decode,
)
FLUX2_KLEIN_KV = replace(
    FLUX2,
    name="flux2_klein_kv",
    pipelines=("Flux2KleinKVPipeline",),
    tokens={r"single_transformer_blocks\..*": "image last", ".*": "pair, references first"},
    to_pixels=_decode,
    arguments=lambda pipe, given: {name: value for name, value in given.items() if name != "guidance_scale"},
)
