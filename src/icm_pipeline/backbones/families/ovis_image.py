"""Ovis-Image and LongCat-Image: FLUX's blocks with one text encoder, guided in two calls."""

from dataclasses import replace

from icm_pipeline.backbones.families.flux import FLUX

OVIS_IMAGE = replace(
    FLUX, name="ovis_image", pipelines=("OvisImagePipeline",), also=(), gate=None, latent_shape=None, to_pixels=None
)
LONGCAT_IMAGE = replace(  # whose image has an id of its own in place of 0
    OVIS_IMAGE, name="longcat_image", pipelines=("LongCatImagePipeline",), check_run=lambda inputs: None
)
