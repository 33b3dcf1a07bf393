"""FLUX.2: FLUX's two kinds of blocks; a single one has attention and feed-forward in one, and gives one sequence.

FLUX.2-dev has guidance as an input, Klein guides in two calls where it is not distilled. Tokens of reference pictures,
which each may be given, are left alone. Klein KV puts them in front of the image, in the first step alone.
"""

from dataclasses import replace

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_references
from icm_pipeline.backbones.sites import JOINT_TEXT

FLUX2 = Family(
    name="flux2",
    pipelines=("Flux2Pipeline",),
    sites={
        "self_attention": r"(single_)?transformer_blocks\.\d+\.attn",
        "feed_forward": r"transformer_blocks\.\d+\.ff",
    },
    text=JOINT_TEXT,
    describe=describe_references,
    timestep=lambda pipe, inputs: inputs["timestep"] * 1000,
    rows="embedded",
    tokens={r"single_transformer_blocks\..*": "text first, references last", ".*": "pair, references last"},
)
FLUX2_KLEIN = replace(
    FLUX2,
    name="flux2_klein",
    pipelines=("Flux2KleinPipeline",),
    also=("Flux2KleinInpaintPipeline",),
    rows="two calls",
)
FLUX2_KLEIN_KV = replace(
    FLUX2,
    name="flux2_klein_kv",
    pipelines=("Flux2KleinKVPipeline",),
    tokens={r"single_transformer_blocks\..*": "image last", ".*": "pair, references first"},
)
