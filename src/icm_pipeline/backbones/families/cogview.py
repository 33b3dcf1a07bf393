"""CogView 3+ and 4, and GLM-Image: joint attention in every block; blocks too give (image, text).

CogView 4 and GLM-Image send image and text through the same feed-forward one after the other: it is no site.
"""

from dataclasses import replace

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import decode_scaled, describe_patches, latent_shape

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
    latent_shape=None,
    to_pixels=None,
)
