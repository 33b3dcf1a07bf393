"""Lumina-Next: the conditional rows come first; both attentions of a block end in attn2's output map."""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import decode_scaled, describe_patches, latent_shape

LUMINA = Family(
    name="lumina",
    pipelines=("LuminaPipeline",),
    sites={"self_attention": r"layers\.\d+\.attn2\.to_out\.0", "feed_forward": r"layers\.\d+\.feed_forward"},
    text=r"(time_caption_embed|.*\.(norm1_context|attn2\.(to_k|to_v|norm_k)))(\..*)?",
    describe=describe_patches,
    timestep=lambda pipe, inputs: 1000 * (1 - inputs["timestep"]),
    rows="conditional first",
    tokens="image only",
    shared_inputs=("image_rotary_emb",),
    latent_shape=latent_shape,
    to_pixels=decode_scaled,
    options={"clean_caption": False},
)
