"""Stable Cascade: the prior, which follows the prompt, and the decoder; the conditional rows come first.

Each is a pipeline of its own with a UNet of maps; the combined pipeline holds both, as `prior_pipe` and `decoder_pipe`.
"""

from dataclasses import replace

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
STABLE_CASCADE_DECODER = replace(
    STABLE_CASCADE_PRIOR,
    name="stable_cascade_decoder",
    pipelines=("StableCascadeDecoderPipeline",),
    denoiser="decoder",
)
