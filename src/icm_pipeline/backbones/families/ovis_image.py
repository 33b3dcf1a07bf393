"""Ovis-Image and LongCat-Image: FLUX's blocks with one text encoder, guided in two calls.

LongCat's editing pipeline puts the tokens of its picture behind the image's.
"""

from dataclasses import replace

from icm_pipeline.backbones.families.flux import FLUX, FLUX_KONTEXT

OVIS_IMAGE = replace(
    FLUX, name="ovis_image", pipelines=("OvisImagePipeline",), also=(), gate=None,
    tokenizer="",  # behind a chat template
)  # fmt: skip
LONGCAT_IMAGE = replace(
    FLUX_KONTEXT,
    name="longcat_image",
    pipelines=("LongCatImagePipeline",),
    also=("LongCatImageEditPipeline",),
    gate=None,
    tokenizer="",  # behind a chat template
    arguments=FLUX.arguments,
    # Rewriting draws words from torch's one generator; a negative prompt of its own is one, for however many images.
    options={"enable_prompt_rewrite": False, "negative_prompt": ""},
)
