"""PRX, of latents or of pixels: image tokens alone in every block, which attend to the text beside themselves."""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_patches
from icm_pipeline.backbones.sites import JOINT_TEXT

PRX = Family(
    name="prx",
    pipelines=("PRXPipeline", "PRXPixelPipeline"),
    sites={"self_attention": r"blocks\.\d+\.attention", "feed_forward": r"blocks\.\d+\.down_proj"},
    text=JOINT_TEXT,
    describe=describe_patches,
    timestep=lambda pipe, inputs: inputs["timestep"] * pipe.scheduler.config.num_train_timesteps,
    rows="unconditional first",
    tokens="image only",
)
