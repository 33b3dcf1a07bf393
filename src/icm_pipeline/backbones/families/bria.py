"""Bria 3.2 and FIBO: FLUX's blocks, guided in one call; FIBO gives every block a text of its own.

FIBO's editing pipeline puts the tokens of its pictures behind the image's.
"""

from dataclasses import replace

from icm_pipeline.backbones.families.flux import FLUX, FLUX_KONTEXT
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
BRIA_FIBO = replace(
    FLUX_KONTEXT,
    name="bria_fibo",
    pipelines=("BriaFiboPipeline",),
    also=("BriaFiboEditPipeline",),
    text=rf"caption_projection(\..*)?|{JOINT_TEXT}",
    timestep=BRIA.timestep,
    rows="unconditional first",
    gate=None,
)
