"""FLUX.1: double blocks give (image, text) tokens, single blocks one sequence with the text first.

`self_attention` is the joint attention of both; only image tokens are read and changed. A single block's attention is
read before its output projection, which is another space than a double block's.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from icm_pipeline.backbones.base import BackboneError, Family
from icm_pipeline.backbones.formats import DOUBLE_THEN_SINGLE, WITH_REFERENCES
from icm_pipeline.backbones.gates import NORM_GATE
from icm_pipeline.backbones.latents import decode_shifted, describe_packed, describe_references, pack, packed_shape
from icm_pipeline.backbones.sites import JOINT_TEXT


def _check_run(inputs: Mapping[str, Any]) -> None:
    """Raise BackboneError for tokens of reference pictures, which follow the image's own under an id of theirs."""
    ids = inputs.get("img_ids")
    if isinstance(ids, Tensor) and bool(ids[..., 0].any()):
        raise BackboneError("FLUX's denoiser was called with tokens of a reference picture (Kontext): not known here.")


def _to_pixels(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    return decode_shifted(pipe, pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor), height, width)


FLUX = Family(
    name="flux",
    pipelines=("FluxPipeline",),
    also=(
        "FluxImg2ImgPipeline",
        "FluxInpaintPipeline",
        "FluxFillPipeline",
        "FluxControlPipeline",
        "FluxControlImg2ImgPipeline",
        "FluxControlInpaintPipeline",
        "FluxControlNetPipeline",
        "FluxControlNetImg2ImgPipeline",
        "FluxControlNetInpaintPipeline",
    ),
    sites={
        "self_attention": r"(single_)?transformer_blocks\.\d+\.attn",
        "feed_forward": r"transformer_blocks\.\d+\.ff",
    },
    text=JOINT_TEXT,
    tokenizer="tokenizer_2",
    describe=describe_packed,
    check_run=_check_run,
    timestep=lambda pipe, inputs: inputs["timestep"] * 1000,
    rows="two calls",
    tokens=DOUBLE_THEN_SINGLE,
    latent_shape=packed_shape,
    pack=pack,
    to_pixels=_to_pixels,
    shared_inputs=("img_ids", "txt_ids"),
    gate=NORM_GATE,
)
FLUX_KONTEXT = replace(  # whose tokens of a reference picture are left alone
    FLUX,
    name="flux_kontext",
    pipelines=("FluxKontextPipeline",),
    also=("FluxKontextInpaintPipeline",),
    describe=describe_references,
    check_run=lambda inputs: None,
    tokens=WITH_REFERENCES,
    arguments=lambda pipe, given: {**given, "max_area": given["height"] * given["width"]},  # to which it resizes
)
