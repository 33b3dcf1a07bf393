"""Cosmos-Predict2's text-to-image pipeline: a DiT of videos, here of one frame, guided in two calls."""

from collections.abc import Mapping
from typing import Any

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_patches
from icm_pipeline.backbones.sites import CROSS_TEXT


def _timestep(pipe: Any, inputs: Mapping[str, Any]) -> Any:
    """Return what the pipeline says it is at; else sigma / (1 + sigma) undone, which bfloat16 is too coarse for."""
    share = inputs["timestep"].flatten()[0].float()
    told = getattr(pipe, "_current_timestep", None)
    return pipe.scheduler.config.num_train_timesteps * share / (1 - share) if told is None else told


COSMOS2 = Family(
    name="cosmos2",
    pipelines=("Cosmos2TextToImagePipeline",),
    sites={
        "self_attention": r"transformer_blocks\.\d+\.attn1",
        "cross_attention": r"transformer_blocks\.\d+\.attn2",
        "feed_forward": r"transformer_blocks\.\d+\.ff",
    },
    text=rf"crossattn_proj(\..*)?|{CROSS_TEXT}",
    describe=describe_patches,
    timestep=_timestep,
    rows="two calls",
    tokens="image only",
)
