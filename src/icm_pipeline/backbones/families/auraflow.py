"""AuraFlow: a few double blocks, then single ones; registers come before the text."""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import decode_scaled, describe_patches, latent_shape
from icm_pipeline.backbones.sites import JOINT_TEXT

AURAFLOW = Family(
    name="auraflow",
    pipelines=("AuraFlowPipeline",),
    sites={
        "self_attention": r"(joint|single)_transformer_blocks\.\d+\.attn",
        "feed_forward": r"(joint|single)_transformer_blocks\.\d+\.ff",
    },
    text=JOINT_TEXT,
    describe=describe_patches,
    timestep=lambda pipe, inputs: inputs["timestep"] * 1000,
    rows="unconditional first",
    tokens={r"single_.*": "image last", ".*": "pair"},
    default_size=lambda pipe: 1024,
    latent_shape=latent_shape,
    to_pixels=decode_scaled,
)
