"""Pipelines of every family with a few hundred thousand random weights, built offline in diffusers' own format."""

import string
from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    VQModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizerFast,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

LETTERS = list(string.ascii_lowercase)
WIDTH = 32  # of text embeddings


def _clip_tokenizer() -> CLIPTokenizer:
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=16)


def clip(projected: bool = False, length: int = 16) -> Any:
    config = CLIPTextConfig(
        vocab_size=54, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=length, projection_dim=WIDTH, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def _t5(width: int = WIDTH) -> tuple[T5EncoderModel, T5TokenizerFast]:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(letter, -3.0) for letter in LETTERS] + [(f"\u2581{letter}", -2.5) for letter in LETTERS]
    tokenizer = T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=16)
    config = T5Config(vocab_size=len(pieces), d_model=width, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    return T5EncoderModel(config), tokenizer


def autoencoder(channels: int, shift: float | None = None, levels: int = 2) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8,) * levels, down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, latent_channels=channels, norm_num_groups=4, shift_factor=shift,
    )  # fmt: skip


def movq() -> VQModel:
    return VQModel(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, vq_embed_dim=4,
    )  # fmt: skip


def _unet(**more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        attention_head_dim=8, norm_num_groups=8, **more,
    )  # fmt: skip


def _sd_parts() -> dict[str, Any]:
    return dict(
        vae=autoencoder(4), text_encoder=clip(), tokenizer=_clip_tokenizer(), unet=_unet(cross_attention_dim=WIDTH),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def _stable_diffusion() -> StableDiffusionPipeline:
    return StableDiffusionPipeline(**_sd_parts())


def _perturbed() -> StableDiffusionPAGPipeline:
    return StableDiffusionPAGPipeline(**_sd_parts())


def _sdxl() -> StableDiffusionXLPipeline:
    unet = _unet(
        cross_attention_dim=2 * WIDTH, transformer_layers_per_block=(1, 2), addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=WIDTH + 6 * 8,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=autoencoder(4), text_encoder=clip(), text_encoder_2=clip(projected=True), tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(), unet=unet, scheduler=EulerDiscreteScheduler(), add_watermarker=False,
    )  # fmt: skip


def _sana() -> SanaPipeline:
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "\u2581": 4}
    vocabulary |= {letter: 5 + i for i, letter in enumerate(LETTERS)}
    tokenizer = GemmaTokenizerFast(vocab=vocabulary, merges=[])
    text_encoder = Gemma2Model(
        Gemma2Config(
            vocab_size=len(vocabulary), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, head_dim=16,
        )
    )  # fmt: skip
    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2, attention_head_dim=8,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=WIDTH,
        sample_size=8, mlp_ratio=2.0,
    )  # fmt: skip
    vae = AutoencoderDC(
        latent_channels=4, encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        encoder_layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1), attention_head_dim=2,
        encoder_block_types="ResBlock", decoder_block_types="ResBlock", encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()), scaling_factor=0.5,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, algorithm_type="dpmsolver++"
    )
    return SanaPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler
    )


def _flux() -> FluxPipeline:
    text_encoder_2, tokenizer_2 = _t5()
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=autoencoder(4, shift=0.1),
        text_encoder=clip(), tokenizer=_clip_tokenizer(), text_encoder_2=text_encoder_2, tokenizer_2=tokenizer_2,
        transformer=transformer,
    )  # fmt: skip
    return pipe


def _sd3() -> StableDiffusion3Pipeline:
    text_encoder_3, tokenizer_3 = _t5(2 * WIDTH)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=2 * WIDTH, caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH, pos_embed_max_size=16, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=autoencoder(4, shift=0.1),
        text_encoder=clip(projected=True), tokenizer=_clip_tokenizer(), text_encoder_2=clip(projected=True),
        tokenizer_2=_clip_tokenizer(), text_encoder_3=text_encoder_3, tokenizer_3=tokenizer_3,
    )  # fmt: skip


def _pixart() -> PixArtSigmaPipeline:
    text_encoder, tokenizer = _t5()
    transformer = PixArtTransformer2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        out_channels=8, cross_attention_dim=16, caption_channels=WIDTH, use_additional_conditions=False,
    )  # fmt: skip
    return PixArtSigmaPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=autoencoder(4), transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )  # fmt: skip


def _z_image() -> ZImagePipeline:
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *LETTERS, "\u0120", "\u010a", ">", "<", "|", "_"]
    tokenizer = Qwen2Tokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}{% endfor %}"
    text_encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=len(words) + 8, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, head_dim=16,
        )
    )  # fmt: skip
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
        axes_dims=[4, 4, 8], axes_lens=[256, 64, 64],
    )  # fmt: skip
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=autoencoder(4, shift=0.1),
        text_encoder=text_encoder, tokenizer=tokenizer, transformer=transformer,
    )  # fmt: skip


BUILDERS: dict[str, Callable[[], Any]] = {
    "sd": _stable_diffusion, "sdxl": _sdxl, "pag": _perturbed, "sana": _sana, "flux": _flux, "sd3": _sd3,
    "pixart": _pixart, "z_image": _z_image,
}  # fmt: skip


def build(name: str) -> Any:
    """Build a pipeline with seeded weights, large enough everywhere that every layer counts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = BUILDERS[name]()
        denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
        for parameter in denoiser.parameters():
            if not parameter.any():  # zero-initialised outputs and gates would hide what happens before them
                torch.nn.init.normal_(parameter, std=0.1)
    return pipe


def built(name: str) -> Any:
    """Build a pipeline that is quiet, and whose text encoders draw no dropout."""
    pipe = build(name)
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipe
