"""DeepFloyd IF, first and second stage: UNets of pixels whose attention sees its own places and the text, as maps."""

import inspect
from typing import Any

from icm_pipeline.backbones.base import BackboneError, Family
from icm_pipeline.backbones.latents import describe_sample


def _drawing_itself(pipe: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return what is given but the noise, which this class takes none of and draws from each image's generator.

    Raises BackboneError for a scheduler that would take the variance that the denoiser predicts for more channels.
    """
    kind = type(pipe.scheduler)
    learns = pipe.scheduler.config.get("variance_type") in ("learned", "learned_range")
    if learns and "variance_type" not in inspect.signature(kind).parameters:
        raise BackboneError(
            f"DeepFloyd IF predicts a variance, which {kind.__name__} does not read: set model.scheduler=null or "
            "model.scheduler=dpmpp_2m."
        )
    return {name: value for name, value in given.items() if name != "latents"} | {"output_type": "pt"}


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
    arguments=_drawing_itself,
)
