"""Z-Image: one stream; every layer sees each row's image tokens, then padding, then its text tokens.

The Omni pipeline's rows are lists: text comes first, then the pictures that it is given, the image last of them, then
what SigLIP sees in them; each part is padded.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from icm_pipeline.backbones.base import BackboneError, Described, Family, common_size
from icm_pipeline.backbones.latents import decode_shifted


def _describe(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
    """Describe a call whose first argument is a list of latents [c, f, h, w], one a row."""
    rows = args[0] if args else kwargs.get("x")
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], Tensor):
        raise BackboneError("Z-Image's denoiser was called without a list of latents.")
    return Described(rows[0], len(rows), None, common_size("image tokens", {_num_tokens(row, kwargs) for row in rows}))


def _describe_omni(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
    """Describe a call whose rows are lists of pictures, each row's own image last, and of texts between them."""
    rows, texts = kwargs["x"], kwargs["cap_feats"]
    starts = tuple(
        sum(map(_padded, map(len, parts))) + sum(_padded(_num_tokens(picture, kwargs)) for picture in row[:-1])
        for row, parts in zip(rows, texts, strict=True)
    )
    sizes = {_num_tokens(row[-1], kwargs) for row in rows}
    return Described(rows[0][-1], len(rows), starts, common_size("image tokens", sizes))


def _num_tokens(latents: Tensor, kwargs: Mapping[str, Any]) -> int:
    patch = kwargs.get("patch_size", 2)
    return latents.shape[1] * (latents.shape[2] // patch) * (latents.shape[3] // patch)


def _padded(length: int) -> int:
    """Return how many tokens a part has with its padding, as diffusers' SEQ_MULTI_OF says."""
    return length + -length % 32


def _latent_shape(pipe: Any, height: int, width: int) -> tuple[int, ...]:
    factor = pipe.vae_scale_factor
    return pipe.transformer.in_channels, height // factor, width // factor


Z_IMAGE = Family(
    name="z_image",
    pipelines=("ZImagePipeline",),
    also=(
        "ZImageImg2ImgPipeline",
        "ZImageInpaintPipeline",
        "ZImageControlNetPipeline",
        "ZImageControlNetInpaintPipeline",
    ),
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
Z_IMAGE_OMNI = replace(
    Z_IMAGE,
    name="z_image_omni",
    pipelines=("ZImageOmniPipeline",),
    also=(),
    text=r"(context_refiner|cap_embedder|siglip_refiner|siglip_embedder)(\..*)?",
    describe=_describe_omni,
    tokens={r"layers\..*": "text first"},
    inputs_by_row=("x", "cap_feats", "siglip_feats", "image_noise_mask"),
)
