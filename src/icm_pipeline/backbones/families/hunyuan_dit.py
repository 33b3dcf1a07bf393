"""Hunyuan-DiT: attn1 (self), attn2 (cross) and ff; the later half of the blocks is given what the first made."""

from dataclasses import replace

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import decode_scaled, describe_patches, latent_shape
from icm_pipeline.backbones.sites import CROSS_TEXT

HUNYUAN_DIT = Family(
    name="hunyuan_dit",
    pipelines=("HunyuanDiTPipeline",),
    also=("HunyuanDiTControlNetPipeline",),
    sites={
        "self_attention": r"blocks\.\d+\.attn1",
        "cross_attention": r"blocks\.\d+\.attn2",
        "feed_forward": r"blocks\.\d+\.ff",
    },
    text=CROSS_TEXT,
    tokenizer="",  # two texts, one behind the other
    describe=describe_patches,
    rows="unconditional first",
    tokens="image only",
    latent_shape=latent_shape,
    to_pixels=decode_scaled,
    options={"use_resolution_binning": False},
)
HUNYUAN_DIT_PAG = replace(
    HUNYUAN_DIT, name="hunyuan_dit_pag", pipelines=("HunyuanDiTPAGPipeline",), also=(), rows="perturbed"
)
