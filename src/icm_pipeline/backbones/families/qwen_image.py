"""Qwen-Image: double blocks of joint attention alone; true guidance in two calls, where there is a negative prompt."""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_packed
from icm_pipeline.backbones.sites import JOINT_TEXT

QWEN_IMAGE = Family(
    name="qwen_image",
    pipelines=("QwenImagePipeline",),
    sites={"self_attention": r"transformer_blocks\.\d+\.attn", "feed_forward": r"transformer_blocks\.\d+\.img_mlp"},
    text=JOINT_TEXT,
    describe=describe_packed,
    timestep=lambda pipe, inputs: inputs["timestep"] * 1000,
    rows="two calls",
    tokens="pair",
)
