"""Z-Image: one stream; every layer sees each row's image tokens, then padding, then its text tokens."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from icm_pipeline.backbones.base import BackboneError, Described, Family, common_size
from icm_pipeline.backbones.latents import decode_shifted


def _describe(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
    """Describe a call whose first argument is a list of latents [c, f, h, w], one a row."""
    rows = args[0] if args else kwargs.get("x")
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], Tensor):
        raise BackboneError("Z-Image's denoiser was called without a list of latents.")
    patch = kwargs.get("patch_size", 2)
    sizes = {row.shape[1] * (row.shape[2] // patch) * (row.shape[3] // patch) for row in rows}
    return Described(rows[0], len(rows), None, common_size("image tokens", sizes))


def _latent_shape(pipe: Any, height: int, width: int) -> tuple[int, ...]:
    factor = pipe.vae_scale_factor
    return pipe.transformer.in_channels, height // factor, width // factor


Z_IMAGE = Family(
    name="z_image",
    pipelines=("ZImagePipeline",),
    also=("ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
    sites={"self_attention": r"layers\.\d+\.attention", "feed_forward": r"layers\.\d+\.feed_forward"},
    text=r"(context_refiner|cap_embedder)(\..*)?",
    tokenizer="",  # behind a chat template
    describe=_describe,
    timestep=lambda pipe, inputs: 1000 - 1000 * inputs["t"],
    rows="conditional first",
    tokens="image first",
    default_size=lambda pipe: 1024,
    latent_shape=_latent_shape,
    to_pixels=decode_shifted,
    float32_latents=True,
    inputs_by_row=("x", "cap_feats"),
)
