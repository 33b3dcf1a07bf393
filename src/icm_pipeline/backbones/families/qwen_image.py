"""Qwen-Image: double blocks of joint attention alone; true guidance in two calls, where there is a negative prompt.

The editing pipelines put the tokens of their pictures behind the image's.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from icm_pipeline.backbones.base import Described, Family
from icm_pipeline.backbones.latents import decode_film, describe_packed, pack, packed_shape
from icm_pipeline.backbones.sites import JOINT_TEXT


def _describe_edit(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
    """Describe a call that is told the shapes of its pictures, the image's own first."""
    return describe_packed(pipe, args, kwargs)._replace(num_image_tokens=math.prod(kwargs["img_shapes"][0][0]))


def _to_pixels(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    unpacked = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
    return decode_film(pipe, unpacked.to(pipe.vae.dtype))


QWEN_IMAGE = Family(
    name="qwen_image",
    pipelines=("QwenImagePipeline",),
    also=(
        "QwenImageImg2ImgPipeline",
        "QwenImageInpaintPipeline",
        "QwenImageControlNetPipeline",
        "QwenImageControlNetInpaintPipeline",
    ),
    sites={"self_attention": r"transformer_blocks\.\d+\.attn", "feed_forward": r"transformer_blocks\.\d+\.img_mlp"},
    text=JOINT_TEXT,
    tokenizer="",  # behind a chat template
    describe=describe_packed,
    timestep=lambda pipe, inputs: inputs["timestep"] * 1000,
    rows="two calls",
    tokens="pair",
    latent_shape=packed_shape,
    pack=pack,
    to_pixels=_to_pixels,
)
QWEN_IMAGE_EDIT = replace(
    QWEN_IMAGE,
    name="qwen_image_edit",
    pipelines=(),
    also=("QwenImageEditPipeline", "QwenImageEditInpaintPipeline", "QwenImageEditPlusPipeline"),
    describe=_describe_edit,
    tokens="pair, references last",
    latent_shape=None,
    to_pixels=None,
)
