"""ERNIE-Image: one sequence with the image first, rows before places in attention alone.

Its pipeline prepares its latents inside of its call, so the number of images has to be given.
"""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_patches

ERNIE_IMAGE = Family(
    name="ernie_image",
    pipelines=("ErnieImagePipeline",),
    sites={"self_attention": r"layers\.\d+\.self_attention"},
    text=r"text_proj(\..*)?",
    describe=describe_patches,
    rows="unconditional first",
    tokens="image first",
)
