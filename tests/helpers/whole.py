"""Tiny pipelines with text encoders of their families' own kinds, as a run loads them from a folder."""

import io
import string
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    ByT5Tokenizer,
    GlmImageConfig,
    GlmImageForConditionalGeneration,
    GlmImageImageProcessor,
    GlmImageProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
)

from tests.helpers.denoisers import TINY
from tests.helpers.pipelines import LETTERS, autoencoder, build, clip, movq
from tests.helpers.tiny import WIDTH
from tests.helpers.tiny import build as build_tiny

SMALL = dict(
    hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
)  # fmt: skip


def whole(name: str, denoiser: Mapping[str, Any] | None = None, **parts: Any) -> Any:
    """Return a tiny pipeline with further parts; denoiser: other values of its configuration."""
    tiny, makers = TINY[name], {key: partial(_same, part) for key, part in parts.items()}
    kind, config = tiny.denoiser
    return build_tiny(replace(tiny, parts={**tiny.parts, **makers}, denoiser=(kind, {**config, **(denoiser or {})})))


def _same(part: Any) -> Any:
    return part


def parts_of(name: str, **names: str) -> dict[str, Any]:
    """Return parts of a whole pipeline by new names, which are given with their old ones."""
    components = build(name).components
    return {new: components[old] for new, old in names.items()}


def kolors(name: str) -> Any:
    sentencepiece = pytest.importorskip("sentencepiece")
    return whole(name, vae=autoencoder(4), text_encoder=_chat_glm(), tokenizer=_chat_glm_tokenizer(sentencepiece))


def hunyuan_dit(name: str) -> Any:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    text_encoder = BertModel(
        BertConfig(
            vocab_size=len(words), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=77,
        )
    )  # fmt: skip
    return whole(
        name, {"text_len": 77, "text_len_t5": 256}, vae=autoencoder(4, levels=4), text_encoder=text_encoder,
        tokenizer=BertTokenizer(vocab={word: i for i, word in enumerate(words)}),
        **parts_of("flux", text_encoder_2="text_encoder_2", tokenizer_2="tokenizer_2"),
    )  # fmt: skip


def lumina() -> Any:
    gemma = parts_of("sana", text_encoder="text_encoder", tokenizer="tokenizer")
    return whole("lumina", vae=autoencoder(4, levels=4), **gemma)


def prx(vae: Any) -> Any:
    gemma = parts_of("sana", text_encoder="text_encoder", tokenizer="tokenizer")
    gemma["tokenizer"].model_max_length = 16
    return whole("prx", vae=vae, **gemma)


def prx_pixel() -> Any:
    return whole("prx_pixel", **parts_of("sana", text_encoder="text_encoder", tokenizer="tokenizer"))


def glm_image() -> Any:
    names = dict(image_token="<|image|>", grid_bos_token="<sop>", grid_eos_token="<eop>")
    words = ["<|endoftext|>", "<|im_start|>", *names.values(), *LETTERS, *string.digits, "\u0120"]
    tokenizer = Qwen2Tokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], bos_token="<|im_start|>",
        pad_token="<|endoftext|>", extra_special_tokens=names,
    )  # fmt: skip
    template = "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"
    config = GlmImageConfig(
        text_config={
            **SMALL, "num_hidden_layers": 1, "vocab_size": len(words), "vision_vocab_size": 32, "pad_token_id": 0,
            "eos_token_id": None, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 4]}},
        vision_config=dict(depth=1, hidden_size=16, num_heads=2, intermediate_size=16, image_size=32, patch_size=16),
        vq_config=dict(embed_dim=8, num_embeddings=32, latent_channels=16),
        image_token_id=2, image_start_token_id=30, image_end_token_id=31,
    )  # fmt: skip
    vae = autoencoder(4, levels=4)
    vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[2.0, 1.5, 1.0, 3.0])
    return whole(
        "glm_image", vae=vae, text_encoder=byt5(), tokenizer=ByT5Tokenizer(),
        processor=GlmImageProcessor(GlmImageImageProcessor(), tokenizer, template),
        vision_language_encoder=GlmImageForConditionalGeneration(config),
    )  # fmt: skip


def deepfloyd_if() -> Any:
    return whole("deepfloyd_if", **parts_of("flux", text_encoder="text_encoder_2", tokenizer="tokenizer_2"))


def byt5() -> T5EncoderModel:
    """Return an encoder of bytes."""
    return T5EncoderModel(T5Config(vocab_size=384, d_model=WIDTH, d_kv=8, d_ff=64, num_layers=1, num_heads=4))


def omnigen() -> Any:
    return whole("omnigen", **parts_of("z_image", tokenizer="tokenizer"))


def kandinsky3() -> Any:
    return whole("kandinsky3", movq=movq(), **parts_of("flux", text_encoder="text_encoder_2", tokenizer="tokenizer_2"))


def kandinsky5() -> Any:
    tokenizer = build("z_image").tokenizer  # in a processor's place, which texts alone do not reach
    text = {
        **SMALL, "vocab_size": len(tokenizer), "rope_parameters": {"mrope_section": [2, 2, 4], "rope_type": "default"}
    }  # fmt: skip
    seen = dict(depth=1, hidden_size=WIDTH, intermediate_size=64, num_heads=2, out_hidden_size=WIDTH)
    text_encoder = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=seen))
    return whole(
        "kandinsky5", vae=autoencoder(4, levels=4), text_encoder=text_encoder, tokenizer=tokenizer,
        text_encoder_2=clip(length=77), **parts_of("flux", tokenizer_2="tokenizer"),
    )  # fmt: skip


def hidream() -> Any:
    return whole(
        "hidream", {"text_emb_dim": 2 * WIDTH}, vae=autoencoder(4, shift=0.1),
        text_encoder=clip(projected=True), text_encoder_2=clip(projected=True),
        text_encoder_4=LlamaForCausalLM(LlamaConfig(**SMALL, vocab_size=64)),
        **parts_of("flux", tokenizer="tokenizer", text_encoder_3="text_encoder_2", tokenizer_3="tokenizer_2"),
        **parts_of("sd3", tokenizer_2="tokenizer_2"), **parts_of("z_image", tokenizer_4="tokenizer"),
    )  # fmt: skip


def _chat_glm() -> Any:
    from diffusers.pipelines.kolors import ChatGLMModel  # with sentencepiece
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig

    model = ChatGLMModel(
        ChatGLMConfig(
            num_layers=2, padded_vocab_size=64, hidden_size=WIDTH, ffn_hidden_size=64, kv_channels=16,
            num_attention_heads=2, seq_length=256, original_rope=True,
        )
    )  # fmt: skip
    for name, parameter in model.named_parameters():  # which it leaves empty
        nn.init.ones_(parameter) if "norm" in name else nn.init.normal_(parameter, std=0.1)
    return model.eval()


def _chat_glm_tokenizer(sentencepiece: Any) -> Any:
    """Return a tokenizer of letters."""
    from diffusers.pipelines.kolors import ChatGLMTokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(LETTERS)]), model_writer=model, model_type="char", vocab_size=30,
        minloglevel=2,
    )  # fmt: skip
    path = Path(tempfile.mkdtemp()) / "tokenizer.model"
    path.write_bytes(model.getvalue())
    return ChatGLMTokenizer(str(path))
