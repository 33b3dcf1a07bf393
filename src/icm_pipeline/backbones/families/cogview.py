"""CogView 3+ and 4, and GLM-Image: joint attention in every block; blocks too give (image, text).

CogView 4 and GLM-Image send image and text through the same feed-forward one after the other: it is no site.
"""

from dataclasses import replace
from typing import Any

import torch

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import decode_by_channel, decode_scaled, describe_patches, latent_shape


def _planned(pipe: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return what is given and the plan of each picture, which a language model draws from the picture's own seed.

    GlmImagePipeline draws those of a whole batch from its first image's seed.
    """
    device = pipe._execution_device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # whose seed it sets
        plans = [
            pipe.generate_prior_tokens([prompt], given["height"], given["width"], generator=generator)[0]
            for prompt, generator in zip(given["prompt"], given["generator"], strict=True)
        ]
    return given | {"prior_token_ids": torch.cat(plans)}


COGVIEW4 = Family(
    name="cogview4",
    pipelines=("CogView4Pipeline",),
    also=("CogView4ControlPipeline",),
    sites={"self_attention": r"transformer_blocks\.\d+\.attn1"},
    text=r"(patch_embed\.text_proj|.*\.norm1\.norm_context|.*\.norm2_context|.*\.ff)(\..*)?",
    describe=describe_patches,
    rows="two calls",
    tokens={r"transformer_blocks\.\d+\.attn1\..*": "text first", ".*": "image, text"},
    tokenizer="",  # which pads in front
    default_size=lambda pipe: pipe.transformer.config.sample_size * pipe.vae_scale_factor,
    latent_shape=latent_shape,
    to_pixels=decode_scaled,
)
COGVIEW3PLUS = replace(
    COGVIEW4,
    name="cogview3plus",
    pipelines=("CogView3PlusPipeline",),
    also=(),
    sites={"self_attention": r"transformer_blocks\.\d+\.attn1", "feed_forward": r"transformer_blocks\.\d+\.ff"},
    text=r"(patch_embed\.text_proj|.*\.norm1\.norm_c|.*\.norm2_context)(\..*)?",
    rows="unconditional first",
    tokens={r"transformer_blocks\.\d+\.(attn1\..*|ff(\..*)?)": "text first", ".*": "image, text"},
    tokenizer="tokenizer",
)
GLM_IMAGE = replace(
    COGVIEW4,
    name="glm_image",
    pipelines=("GlmImagePipeline",),
    also=(),
    timestep=lambda pipe, inputs: inputs["timestep"] + 1,
    text=rf"glyph_projector(\..*)?|{COGVIEW4.text}",
    default_size=lambda pipe: pipe.default_sample_size * pipe.vae_scale_factor,
    size_step=lambda pipe: 32,  # of a place of the plan
    to_pixels=decode_by_channel,
    arguments=_planned,
)
