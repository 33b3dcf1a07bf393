"""Bria 3.2 and FIBO: FLUX's blocks, guided in one call; FIBO gives every block a text of its own."""

from dataclasses import replace

from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.sites import JOINT_TEXT

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
FIBO = replace(BRIA, name="bria_fibo", pipelines=("BriaFiboPipeline",), text=rf"caption_projection(\..*)?|{JOINT_TEXT}")
