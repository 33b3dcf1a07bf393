"""Stable Diffusion 3 and 3.5: joint attention of image and text tokens; only image tokens are read and changed.

`self_attention` is the joint attention and, in 3.5-medium, the second, image-only attention of its first blocks.
"""

from dataclasses import replace
from typing import Any

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.gates import NORM_GATE
from icm_pipeline.backbones.latents import decode_shifted, describe_patches, latent_shape
from icm_pipeline.backbones.sites import JOINT_TEXT


def _largest_size(pipe: Any) -> int | None:
    config = pipe.transformer.config
    return config.pos_embed_max_size * config.patch_size * pipe.vae_scale_factor


SD3 = Family(
    name="sd3",
    pipelines=("StableDiffusion3Pipeline",),
    also=(
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
        "StableDiffusion3ControlNetPipeline",
        "StableDiffusion3ControlNetInpaintingPipeline",
    ),
    sites={"self_attention": r"transformer_blocks\.\d+\.attn2?", "feed_forward": r"transformer_blocks\.\d+\.ff"},
    text=JOINT_TEXT,
    tokenizer="",  # the tokens of two, one after the other
    describe=describe_patches,
    rows="unconditional first, then with layers skipped",
    tokens="pair",
    size_step=lambda pipe: pipe.vae_scale_factor * pipe.patch_size,
    largest_size=_largest_size,
    latent_shape=latent_shape,
    to_pixels=decode_shifted,
    gate=NORM_GATE,
)
SD3_PAG = replace(
    SD3,
    name="sd3_pag",
    pipelines=("StableDiffusion3PAGPipeline",),
    also=("StableDiffusion3PAGImg2ImgPipeline",),
    rows="perturbed",
)
