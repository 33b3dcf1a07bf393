"""HunyuanImage 2.1: joint attention gives (image, text) in both kinds of blocks; its guider makes two calls, or one.

How strongly the guider guides is its own configuration's; of a distilled model the denoiser is told.
"""

from typing import Any

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import decode_scaled, describe_patches, latent_shape
from icm_pipeline.backbones.sites import JOINT_TEXT


def _arguments(pipe: Any, given: dict[str, Any]) -> dict[str, Any]:
    scale = given.pop("guidance_scale")
    return {**given, "distilled_guidance_scale": scale} if pipe.transformer.config.guidance_embeds else given


HUNYUAN_IMAGE = Family(
    name="hunyuan_image",
    pipelines=("HunyuanImagePipeline",),
    sites={
        "self_attention": r"(single_)?transformer_blocks\.\d+\.attn",
        "feed_forward": r"transformer_blocks\.\d+\.ff",
    },
    text=JOINT_TEXT,
    describe=describe_patches,
    rows="two calls",
    tokens={r"single_transformer_blocks\.\d+\.(attn\..*|norm.*|proj.*)": "image first", ".*": "image, text"},
    tokenizer="",  # behind a chat template
    latent_shape=latent_shape,
    to_pixels=decode_scaled,
    arguments=_arguments,
)
