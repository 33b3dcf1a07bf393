"""DeepFloyd IF, first and second stage: UNets of pixels whose attention sees its own places and the text, as maps."""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_sample

DEEPFLOYD_IF = Family(
    name="deepfloyd_if",
    pipelines=("IFPipeline",),
    also=(
        "IFImg2ImgPipeline",
        "IFInpaintingPipeline",
        "IFSuperResolutionPipeline",
        "IFImg2ImgSuperResolutionPipeline",
        "IFInpaintingSuperResolutionPipeline",
    ),
    denoiser="unet",
    sites={"self_attention": r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)\.attentions\.\d+"},
    bottleneck="mid_block",
    text=r"(encoder_hid_proj|add_embedding|.*\.add_[kv]_proj)(\..*)?",
    describe=describe_sample,
    rows="unconditional first",
    tokens="image only",
)
