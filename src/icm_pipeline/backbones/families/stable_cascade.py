"""Stable Cascade's prior, which follows the prompt: a UNet of maps; the conditional rows come first.

The combined pipeline holds it as `prior_pipe`.
"""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_sample

STABLE_CASCADE_PRIOR = Family(
    name="stable_cascade_prior",
    pipelines=("StableCascadePriorPipeline",),
    denoiser="prior",
    sites={"self_attention": r"(down|up)_blocks\.\d+\.\d+\.attention"},
    text=r"(clip_.*|.*\.(kv_mapper|attention\.to_[kv]))(\..*)?",
    describe=describe_sample,
    timestep=lambda pipe, inputs: inputs["timestep_ratio"],
    rows="conditional first",
    tokens="image only",
)
