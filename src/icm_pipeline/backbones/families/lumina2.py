"""Lumina 2: one sequence, each row's text tokens first, then its image's, then padding."""

from collections.abc import Mapping
from typing import Any

from icm_pipeline.backbones.base import Described, Family
from icm_pipeline.backbones.latents import decode_shifted, describe_patches, latent_shape


def _describe(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
    said, mask = describe_patches(pipe, args, kwargs), kwargs["encoder_attention_mask"]
    lengths = tuple(mask.sum(dim=1).tolist())  # which the denoiser asks for too
    return said._replace(num_text_tokens=lengths if len(set(lengths)) > 1 else lengths[0])


LUMINA2 = Family(
    name="lumina2",
    pipelines=("Lumina2Pipeline",),
    sites={"self_attention": r"layers\.\d+\.attn", "feed_forward": r"layers\.\d+\.feed_forward"},
    text=r"(context_refiner|time_caption_embed)(\..*)?",
    describe=_describe,
    timestep=lambda pipe, inputs: 1000 * (1 - inputs["timestep"]),
    rows="two calls",
    tokens={r"layers\..*": "text first", ".*": "image only"},
    latent_shape=latent_shape,
    to_pixels=decode_shifted,
)
