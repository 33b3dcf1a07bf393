"""PRX, of latents or of pixels: image tokens alone in every block, which attend to the text beside themselves."""

from dataclasses import replace
from typing import Any

from icm_pipeline.backbones.base import BackboneError, Family
from icm_pipeline.backbones.latents import decode_shifted, describe_patches, latent_shape
from icm_pipeline.backbones.sites import JOINT_TEXT


def _one_guided(pipe: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Raise BackboneError for several guided images, to whose rows PRXPipeline gives two timesteps in all."""
    if given["guidance_scale"] > 1 and len(given["prompt"]) > 1:
        raise BackboneError(
            f"PRX guides one image at a time, and this batch has {len(given['prompt'])}: set compute.batch_size=1 and "
            "compute.grow_batch=false, or model.guidance_scale=1."
        )
    return given


PRX = Family(
    name="prx",
    pipelines=("PRXPipeline",),
    sites={"self_attention": r"blocks\.\d+\.attention", "feed_forward": r"blocks\.\d+\.down_proj"},
    text=JOINT_TEXT,
    tokenizer="",  # of a text that is cleaned first
    describe=describe_patches,
    timestep=lambda pipe, inputs: inputs["timestep"] * pipe.scheduler.config.num_train_timesteps,
    rows="unconditional first",
    tokens="image only",
    default_size=lambda pipe: pipe.default_sample_size,
    size_step=lambda pipe: pipe.vae_scale_factor * pipe.transformer.config.patch_size,
    latent_shape=latent_shape,
    to_pixels=decode_shifted,
    options={"use_resolution_binning": False},
    arguments=_one_guided,
)
PRX_PIXEL = replace(
    PRX,
    name="prx_pixel",
    pipelines=("PRXPixelPipeline",),
    default_size=lambda pipe: int(pipe.config.default_sample_size),
    pack=lambda pipe, latents: latents * pipe.config.noise_scale,
    to_pixels=lambda pipe, latents, height, width: latents,
)
