"""SANA: a DiT with linear self-attention; attn1 (self) and attn2 (cross) give tokens, ff a feature map."""

from dataclasses import replace

import torch

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.gates import TABLE_GATE
from icm_pipeline.backbones.latents import decode_scaled, describe_patches, latent_shape
from icm_pipeline.backbones.sites import CROSS_TEXT

SANA = Family(
    name="sana",
    pipelines=("SanaPipeline",),
    also=("SanaControlNetPipeline",),
    sites={
        "self_attention": r"transformer_blocks\.\d+\.attn1",
        "cross_attention": r"transformer_blocks\.\d+\.attn2",
        "feed_forward": r"transformer_blocks\.\d+\.ff",
    },
    text=CROSS_TEXT,
    describe=describe_patches,
    timestep=lambda pipe, inputs: inputs["timestep"] / pipe.transformer.config.timestep_scale,
    rows="unconditional first",
    tokens="image only",
    default_size=lambda pipe: pipe.transformer.config.sample_size * pipe.vae_scale_factor,
    size_step=lambda pipe: 32,
    latent_shape=latent_shape,
    to_pixels=decode_scaled,
    float32_latents=True,
    # Neither rounds the size asked for to one of a list, nor writes an instruction in front of every prompt.
    options={"use_resolution_binning": False, "complex_human_instruction": None},
    gate=TABLE_GATE,
)
SANA_SPRINT = replace(
    SANA,
    name="sana_sprint",
    pipelines=("SanaSprintPipeline",),
    also=("SanaSprintImg2ImgPipeline",),
    timestep=lambda pipe, inputs: torch.atan2(inputs["timestep"], 1 - inputs["timestep"]),
    rows="embedded",
)
SANA_PAG = replace(SANA, name="sana_pag", pipelines=("SanaPAGPipeline",), also=(), rows="perturbed")
