"""HiDream-I1: double blocks give (image, text), single ones one sequence with the image first."""

from typing import Any

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import decode_shifted, describe_patches, latent_shape


def _made_size(pipe: Any, height: int, width: int) -> tuple[int, int]:
    """Return the square of the area to which the pipeline scales every size; others have tokens that only pad them."""
    side = pipe.default_sample_size * pipe.vae_scale_factor
    return side, side


HIDREAM = Family(
    name="hidream",
    pipelines=("HiDreamImagePipeline",),
    sites={
        "self_attention": r"(double|single)_stream_blocks\.\d+\.block\.attn1",
        "feed_forward": r"(double|single)_stream_blocks\.\d+\.block\.ff_i",
    },
    text=r"(caption_projection|.*\.(ff_t|norm\d_t|to_[qkv]_t|[qk]_rms_norm_t|to_out_t))(\..*)?",
    describe=describe_patches,
    timestep=lambda pipe, inputs: inputs["timesteps"],
    rows="unconditional first",
    inputs_by_layer=("encoder_hidden_states_llama3",),
    tokens={r"single_stream_.*": "image first", ".*": "image, text"},
    tokenizer="",  # several texts, one behind the other
    made_size=_made_size,
    latent_shape=latent_shape,
    to_pixels=decode_shifted,
)
