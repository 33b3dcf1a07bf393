"""HiDream-I1: double blocks give (image, text), single ones one sequence with the image first."""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_patches

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
)
