"""PixArt-alpha and -Sigma: a DiT with attn1 (self), attn2 (cross) and ff, gated by one shared AdaLN."""

from dataclasses import replace

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.gates import TABLE_GATE
from icm_pipeline.backbones.latents import decode_scaled, describe_patches, latent_shape
from icm_pipeline.backbones.sites import CROSS_TEXT

PIXART = Family(
    name="pixart",
    pipelines=("PixArtSigmaPipeline", "PixArtAlphaPipeline"),
    sites={
        "self_attention": r"transformer_blocks\.\d+\.attn1",
        "cross_attention": r"transformer_blocks\.\d+\.attn2",
        "feed_forward": r"transformer_blocks\.\d+\.ff",
    },
    text=CROSS_TEXT,
    describe=describe_patches,
    rows="unconditional first",
    tokens="image only",
    default_size=lambda pipe: pipe.transformer.config.sample_size * pipe.vae_scale_factor,
    size_step=lambda pipe: pipe.vae_scale_factor * pipe.transformer.config.patch_size,
    latent_shape=latent_shape,
    to_pixels=decode_scaled,
    options={"use_resolution_binning": False, "clean_caption": False},
    gate=TABLE_GATE,
)
PIXART_PAG = replace(PIXART, name="pixart_pag", pipelines=("PixArtSigmaPAGPipeline",), rows="perturbed")
