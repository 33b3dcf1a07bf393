"""Nucleus-MoE-Image: image tokens alone in every block, which read the text beside them; guided in two calls."""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_packed
from icm_pipeline.backbones.sites import JOINT_TEXT

NUCLEUS_IMAGE = Family(
    name="nucleus_image",
    pipelines=("NucleusMoEImagePipeline",),
    sites={"self_attention": r"transformer_blocks\.\d+\.attn", "feed_forward": r"transformer_blocks\.\d+\.img_mlp"},
    text=rf".*\.encoder_proj(\..*)?|{JOINT_TEXT}",
    describe=describe_packed,
    timestep=lambda pipe, inputs: inputs["timestep"] * pipe.scheduler.config.num_train_timesteps,
    rows="two calls",
    tokens="image only",
)
