"""HiDream-I1: double blocks give (image, text), single ones one sequence with the image first."""

from collections.abc import Mapping
from typing import Any

from icm_pipeline.backbones.base import BackboneError, Described, Family
from icm_pipeline.backbones.latents import decode_shifted, describe_patches, latent_shape


def _made_size(pipe: Any, height: int, width: int) -> tuple[int, int]:
    """Return the square of the area to which the pipeline scales every size; others have tokens that only pad them."""
    side = pipe.default_sample_size * pipe.vae_scale_factor
    return side, side


def _describe(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
    """Describe a call; raises BackboneError for an image that is no square, as its tokens are padded to the longest."""
    described = describe_patches(pipe, args, kwargs)
    height, width = described.latents.shape[-2:]
    if height != width:
        raise BackboneError(
            f"HiDream pads the tokens of images that are not square (its latents are {height} x {width} here), and "
            "the padding would be read and changed with them: ask for a height equal to the width."
        )
    return described


HIDREAM = Family(
    name="hidream",
    pipelines=("HiDreamImagePipeline",),
    sites={
        "self_attention": r"(double|single)_stream_blocks\.\d+\.block\.attn1",
        "feed_forward": r"(double|single)_stream_blocks\.\d+\.block\.ff_i",
    },
    text=r"(caption_projection|.*\.(ff_t|norm\d_t|to_[qkv]_t|[qk]_rms_norm_t|to_out_t))(\..*)?",
    describe=_describe,
    timestep=lambda pipe, inputs: inputs["timesteps"],
    rows="unconditional first",
    inputs_by_layer=("encoder_hidden_states_llama3",),
    tokens={r"single_stream_.*": "image first", ".*": "image, text"},
    tokenizer="",  # several texts, one behind the other
    made_size=_made_size,
    latent_shape=latent_shape,
    to_pixels=decode_shifted,
)
