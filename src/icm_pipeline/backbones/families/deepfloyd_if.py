"""DeepFloyd IF, first and second stage: UNets of pixels whose attention sees its own places and the text, as maps."""

from typing import Any

from torch import Tensor

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_sample


def _from_noise(pipe: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return what is given but the noise, which the next call begins from in place of its own."""
    noise: Tensor = given.pop("latents") * pipe.scheduler.init_noise_sigma

    def begin(*asked: Any) -> Tensor:
        del pipe.prepare_intermediate_images
        return noise

    pipe.prepare_intermediate_images = begin
    return given | {"output_type": "pt"}


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
    default_size=lambda pipe: pipe.unet.config.sample_size,
    size_step=lambda pipe: 2 ** (len(pipe.unet.config.block_out_channels) - 1),
    latent_shape=lambda pipe, height, width: (pipe.unet.config.in_channels, height, width),
    to_pixels=lambda pipe, latents, height, width: latents,
    options={"clean_caption": False},
    arguments=_from_noise,
)
