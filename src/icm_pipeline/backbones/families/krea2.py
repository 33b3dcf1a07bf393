"""Krea 2: one sequence with the text first; guidance is on above 0, in a second call."""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_packed

KREA2 = Family(
    name="krea2",
    pipelines=("Krea2Pipeline",),
    sites={"self_attention": r"transformer_blocks\.\d+\.attn", "feed_forward": r"transformer_blocks\.\d+\.ff"},
    text=r"(text_fusion|txt_in)(\..*)?",
    describe=describe_packed,
    timestep=lambda pipe, inputs: inputs["timestep"] * pipe.scheduler.config.num_train_timesteps,
    rows="two calls",
    tokens={r"transformer_blocks\..*": "image last", ".*": "image only"},
    shared_inputs=("position_ids",),
)
