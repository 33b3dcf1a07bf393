"""OmniGen: one sequence of text, pictures it names, the timestep and the image last; always guided, conditional first.

With pictures there is a third row an image, of these alone.
"""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import decode_scaled, describe_patches, latent_shape

OMNIGEN = Family(
    name="omnigen",
    pipelines=("OmniGenPipeline",),
    sites={"self_attention": r"layers\.\d+\.self_attn", "feed_forward": r"layers\.\d+\.mlp"},
    text=r"embed_tokens",
    tokenizer="",  # behind a template
    describe=describe_patches,
    rows="conditional first of two or three",
    tokens={r"layers\..*": "image last", ".*": "image only"},
    latent_shape=latent_shape,
    to_pixels=decode_scaled,
    float32_latents=True,
)
