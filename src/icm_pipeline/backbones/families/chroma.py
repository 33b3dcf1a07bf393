"""Chroma: FLUX's blocks without its pooled text, guided in two calls."""

from dataclasses import replace

from icm_pipeline.backbones.families.flux import FLUX

CHROMA = replace(
    FLUX,
    name="chroma",
    pipelines=("ChromaPipeline",),
    also=("ChromaImg2ImgPipeline", "ChromaInpaintPipeline"),
    gate=None,
    tokenizer="tokenizer",
)
