"""Bria 3.2 and FIBO: FLUX's blocks, guided in one call; FIBO gives every block a text of its own."""

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
