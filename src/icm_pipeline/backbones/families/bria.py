"""Bria 3.2: FLUX's blocks, guided in one call."""

from dataclasses import replace

from icm_pipeline.backbones.families.flux import FLUX

BRIA = replace(
    FLUX,
    name="bria",
    pipelines=("BriaPipeline",),
    also=(),
    timestep=lambda pipe, inputs: inputs["timestep"],
    rows="unconditional first",
    gate=None,
    latent_shape=None,
    to_pixels=None,
)
