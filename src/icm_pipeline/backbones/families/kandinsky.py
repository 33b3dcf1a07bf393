"""Kandinsky 3, a UNet whose blocks have one self-attention and several of the text, and Kandinsky 5, a DiT."""

from typing import Any

from torch import Tensor

from icm_pipeline.backbones.base import BackboneError, Family
from icm_pipeline.backbones.latents import decode_scaled, describe_grid, describe_sample


def _made_size(pipe: Any, height: int, width: int) -> tuple[int, int]:
    """Return the size of Kandinsky 5's list whose shape is nearest."""
    width, height = min(pipe.resolutions, key=lambda size: abs(size[0] / size[1] - width / height))
    return height, width


def _latent_shape(pipe: Any, height: int, width: int) -> tuple[int, ...]:
    factor = pipe.vae_scale_factor_spatial
    return pipe.transformer.config.in_visual_dim, height // factor, width // factor


def _decode(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode latents [b, 1, h, w, c], a film of one frame."""
    return decode_scaled(pipe, latents[:, 0].permute(0, 3, 1, 2), height, width)


def _of_one_length(pipe: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return what is given; raises BackboneError for texts that would be padded to another's length, which counts."""
    tokenized = (pipe.tokenizer(text=[" ".join(prompt.split())])["input_ids"] for prompt in set(given["prompt"]))
    if len({len(tokens[0]) for tokens in tokenized}) > 1:
        raise BackboneError(
            "Kandinsky reads what pads a prompt to the longest of its batch, so that an image would depend on the "
            "others: set compute.batch_size=1 and compute.grow_batch=false."
        )
    return given


def _decode_movq(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    return pipe.movq.decode(latents, force_not_quantize=True)["sample"]


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
    tokenizer="",  # whose text is cut to the longest of its batch
    describe=describe_sample,
    rows="unconditional first",
    tokens="image only",
    default_size=lambda pipe: 1024,
    size_step=lambda pipe: 64,
    latent_shape=lambda pipe, height, width: (pipe.unet.config.in_channels, height // 8, width // 8),
    to_pixels=_decode_movq,
    arguments=_of_one_length,
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
    tokenizer="",  # behind a template
    default_size=lambda pipe: int(pipe.resolutions[0][0]),
    size_step=lambda pipe: 2 * int(pipe.vae_scale_factor_spatial),
    made_size=_made_size,
    latent_shape=_latent_shape,
    pack=lambda pipe, latents: latents.permute(0, 2, 3, 1)[:, None],
    to_pixels=_decode,
    arguments=_of_one_length,
)
