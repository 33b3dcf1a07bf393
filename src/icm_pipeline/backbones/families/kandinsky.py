"""Kandinsky 3, a UNet whose blocks have one self-attention and several of the text, and Kandinsky 5, a DiT."""

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.latents import describe_grid, describe_sample

KANDINSKY3 = Family(
    name="kandinsky3",
    pipelines=("Kandinsky3Pipeline",),
    also=("Kandinsky3Img2ImgPipeline",),
    denoiser="unet",
    sites={
        "self_attention": r"(down|up)_blocks\.\d+\.attentions\.0\.attention",
        "cross_attention": r"(down|up)_blocks\.\d+\.attentions\.[1-9]\d*\.attention",
        "feed_forward": r"(down|up)_blocks\.\d+\.attentions\.\d+\.feed_forward",
    },
    text=r"(encoder_hid_proj|add_time_condition|.*\.attentions\.[1-9]\d*\.attention\.to_[kv])(\..*)?",
    describe=describe_sample,
    rows="unconditional first",
    tokens="image only",
)
KANDINSKY5 = Family(
    name="kandinsky5",
    pipelines=("Kandinsky5T2IPipeline",),
    also=("Kandinsky5I2IPipeline",),
    sites={
        "self_attention": r"visual_transformer_blocks\.\d+\.self_attention",
        "cross_attention": r"visual_transformer_blocks\.\d+\.cross_attention",
        "feed_forward": r"visual_transformer_blocks\.\d+\.feed_forward",
    },
    text=r"(text_embeddings|text_transformer_blocks|.*\.cross_attention\.(to_key|to_value|key_norm))(\..*)?",
    describe=describe_grid,
    rows="two calls",
    tokens="image only",
    shared_inputs=("visual_rope_pos", "text_rope_pos", "scale_factor"),
)
