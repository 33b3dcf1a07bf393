"""HunyuanImage 2.1: joint attention gives (image, text) in both kinds of blocks; its guider makes two calls, or one."""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_patches
from icm_pipeline.backbones.sites import JOINT_TEXT

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
)
