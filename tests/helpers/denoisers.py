"""Pipelines of many families as a denoiser and a scheduler alone, a few thousand random weights each.

Prompts come as embeddings drawn from the words, so no text encoder is built; nothing is decoded, so no autoencoder is.
"""

import inspect
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import diffusers
import torch
from PIL import Image
from torch import Tensor, nn

from tests.helpers.pipelines import autoencoder, clip

WIDTH = 32  # of text embeddings
LENGTH = 6  # of texts in tokens
FLOW = ("FlowMatchEulerDiscreteScheduler", {})


@dataclass(frozen=True)
class Tiny:
    """A pipeline's parts, and how it is called."""

    pipeline: str
    """The diffusers class."""
    denoiser: tuple[str, Mapping[str, Any]]
    """The class, and the values of its configuration."""
    text: Mapping[str, tuple[int, ...]]
    """Arguments of the call that give texts, with the shape of one: embeddings, or masks, which are full; empty where
    the class takes prompts alone."""
    guided: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 3.0})
    """Arguments of the call."""
    plain: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    scheduler: tuple[str, Mapping[str, Any]] = FLOW
    parts: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the class, or what makes them."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What is set on the pipeline."""
    size: int = 64
    """Pixels of a side."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of every call."""
    perturbed: bool = False
    """Whether rows of perturbed attention follow the conditional ones, and change with the prompt too."""
    num_image_tokens: int = 16
    """Into which a denoiser cuts the latents."""


def build(tiny: Tiny) -> Any:
    """Build the pipeline with seeded weights, large enough everywhere that every layer counts."""
    pipeline_class = getattr(diffusers, tiny.pipeline)
    if hasattr(pipeline_class, "_backends"):  # what diffusers has in the place of a class that lacks a library
        raise ImportError(f"{tiny.pipeline} needs {', '.join(pipeline_class._backends)}.")
    wanted = list(inspect.signature(pipeline_class.__init__).parameters.values())[1:]
    name, options = tiny.scheduler
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = filled(getattr(diffusers, tiny.denoiser[0])(**tiny.denoiser[1]))
        parts = {each.name: None for each in wanted if each.default is each.empty}
        name_of = next(name for name in ("unet", "transformer", "prior", "decoder") if name in parts)
        parts |= {name_of: denoiser, **{key: part() if callable(part) else part for key, part in tiny.parts.items()}}
        parts["scheduler"] = getattr(diffusers, name)(**options)
        pipe = pipeline_class(**parts)
    for key, value in tiny.attributes.items():
        setattr(pipe, key, value)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def filled(denoiser: nn.Module) -> nn.Module:
    """Return a denoiser whose zero-initialised outputs and gates hide nothing of what happens before them."""
    for parameter in denoiser.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return denoiser.eval()


def embedded(words: Sequence[str], shape: tuple[int, ...]) -> Tensor:
    """Return an embedding for each text [n, *shape], the same for the same words."""
    draw = [torch.Generator().manual_seed(zlib.crc32(word.encode())) for word in words]
    return torch.stack([torch.randn(shape, generator=generator) for generator in draw])


def _embedding(name: str, prompts: Sequence[str], shape: tuple[int, ...]) -> Tensor:
    if "seqlens" in name:
        return LENGTH * torch.arange(len(prompts) + 1)
    if "mask" in name:
        return torch.ones(len(prompts), *shape, dtype=torch.bool)
    drawn = embedded(prompts, shape)
    return drawn.transpose(0, 1) if "llama3" in name else drawn  # layers come before rows


def texts_of(tiny: Tiny, prompts: Sequence[str], prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: _embedding(name, prompts, shape) for name, shape in tiny.text.items()}


def make(
    tiny: Tiny,
    pipe: Any,
    prompts: Sequence[str] = ("a face", "a dog"),
    negative: str = "bad",
    guided: bool = True,
    num_steps: int = 2,
    **more: Any,
) -> Tensor:
    """Return the latents of two images for each prompt: not every class repeats embeddings that it is given."""
    takes = inspect.signature(type(pipe).__call__).parameters
    words = [prompt for prompt in prompts for _ in range(2)]
    given = texts_of(tiny, words) | (texts_of(tiny, [negative] * len(words), "negative_") if guided else {})
    if not tiny.text:
        given |= {"prompt": words, "negative_prompt": [negative] * len(words)}
    given |= {
        "output_type": "latent",
        "height": tiny.size,
        "width": tiny.size,
        **(tiny.guided if guided else tiny.plain),
        **tiny.more,
        **more,
    }
    generator = [torch.Generator().manual_seed(seed) for seed in range(len(words))]
    if "guider" in pipe.components:
        pipe.guider = diffusers.AdaptiveProjectedMixGuidance() if guided else None
    given = {name: value for name, value in given.items() if name in takes}
    return pipe(num_inference_steps=num_steps, generator=generator, return_dict=False, **given)[0]


_EMBEDS = {"prompt_embeds": (LENGTH, WIDTH)}
_MASKED = {**_EMBEDS, "prompt_embeds_mask": (LENGTH,)}
_ATTENDED = {**_EMBEDS, "prompt_attention_mask": (LENGTH,)}
_POOLED = {**_EMBEDS, "pooled_prompt_embeds": (WIDTH,)}
_JOINT = dict(
    in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=WIDTH, axes_dims_rope=(4, 4, 8),
)  # fmt: skip
_UNET = dict(
    sample_size=8, block_out_channels=(32, 64), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",) * 2,
    up_block_types=("CrossAttnUpBlock2D",) * 2, attention_head_dim=8, norm_num_groups=8, cross_attention_dim=WIDTH,
)  # fmt: skip
_CASCADE = dict(
    conditioning_dim=32, block_out_channels=(16, 32), num_attention_heads=(-1, 2), down_num_layers_per_block=(1, 1),
    up_num_layers_per_block=(1, 1), block_types_per_layer=(("SDCascadeResBlock", "SDCascadeTimestepBlock"), (
        "SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock")), switch_level=(False,),
    clip_text_pooled_in_channels=WIDTH, timestep_ratio_embedding_dim=8, dropout=0.0,
)  # fmt: skip


def _flux2_autoencoder() -> Any:
    return diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4,
    )  # fmt: skip


TINY: dict[str, Tiny] = {
    "qwen_image": Tiny(
        "QwenImagePipeline",
        ("QwenImageTransformer2DModel", dict(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=WIDTH, axes_dims_rope=(4, 4, 8))),
        _MASKED, guided={"true_cfg_scale": 3.0}, plain={"true_cfg_scale": 1.0},
    ),
    "flux2": Tiny(
        "Flux2Pipeline",
        ("Flux2Transformer2DModel", {**_JOINT, "axes_dims_rope": (4, 4, 4, 4), "timestep_guidance_channels": 8}),
        _EMBEDS, plain={"guidance_scale": 3.0},
    ),
    "flux2_klein": Tiny(
        "Flux2KleinPipeline",
        ("Flux2Transformer2DModel", {
            **_JOINT, "axes_dims_rope": (4, 4, 4, 4), "timestep_guidance_channels": 8, "guidance_embeds": False}),
        _EMBEDS, parts={"vae": _flux2_autoencoder}, size=16,
    ),
    "chroma": Tiny(
        "ChromaPipeline",
        ("ChromaTransformer2DModel", {
            **_JOINT, "approximator_num_channels": 8, "approximator_hidden_dim": 16, "approximator_layers": 1}),
        _ATTENDED,
    ),
    "auraflow": Tiny(
        "AuraFlowPipeline",
        ("AuraFlowTransformer2DModel", dict(
            sample_size=8, in_channels=4, num_mmdit_layers=2, num_single_dit_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=WIDTH, caption_projection_dim=32, pos_embed_max_size=64)),
        _ATTENDED,
    ),
    "lumina2": Tiny(
        "Lumina2Pipeline",
        ("Lumina2Transformer2DModel", dict(
            sample_size=8, in_channels=4, hidden_size=48, num_layers=2, num_refiner_layers=1, num_attention_heads=2,
            num_kv_heads=1, multiple_of=16, axes_dim_rope=(8, 8, 8), axes_lens=(32, 32, 32), cap_feat_dim=WIDTH)),
        _ATTENDED,
    ),
    "pixart_alpha": Tiny(
        "PixArtAlphaPipeline",
        ("PixArtTransformer2DModel", dict(
            sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
            out_channels=8, cross_attention_dim=16, caption_channels=WIDTH, use_additional_conditions=False)),
        _ATTENDED, scheduler=("DPMSolverMultistepScheduler", {}),
        more={"use_resolution_binning": False, "negative_prompt": None},
    ),
    "sana_sprint": Tiny(
        "SanaSprintPipeline",
        ("SanaTransformer2DModel", dict(
            in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2, attention_head_dim=8,
            num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=WIDTH,
            sample_size=8, mlp_ratio=2.0, guidance_embeds=True, timestep_scale=1.0)),
        _ATTENDED, plain={"guidance_scale": 3.0}, scheduler=("SCMScheduler", {}), size=128,
        more={"use_resolution_binning": False},
    ),
    "lcm": Tiny(
        "LatentConsistencyModelPipeline", ("UNet2DConditionModel", {**_UNET, "time_cond_proj_dim": 8}), _EMBEDS,
        plain={"guidance_scale": 3.0}, scheduler=("LCMScheduler", {}), parts={"requires_safety_checker": False},
    ),
    "kolors": Tiny(
        "KolorsPipeline",
        ("UNet2DConditionModel", {
            **_UNET, "encoder_hid_dim": WIDTH, "encoder_hid_dim_type": "text_proj", "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": WIDTH + 6 * 8}),
        _POOLED, scheduler=("EulerDiscreteScheduler", {}),
    ),
    "hunyuan_dit": Tiny(
        "HunyuanDiTPipeline",
        ("HunyuanDiT2DModel", dict(
            sample_size=8, num_layers=4, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
            hidden_size=16, cross_attention_dim=WIDTH, cross_attention_dim_t5=WIDTH, pooled_projection_dim=16,
            text_len=LENGTH, text_len_t5=LENGTH)),
        {"prompt_embeds": (LENGTH, WIDTH), "prompt_embeds_2": (LENGTH, WIDTH), "prompt_attention_mask": (LENGTH,),
         "prompt_attention_mask_2": (LENGTH,)},
        scheduler=("DDPMScheduler", {}), parts={"requires_safety_checker": False},
        more={"use_resolution_binning": False},
    ),
    "cogview4": Tiny(
        "CogView4Pipeline",
        ("CogView4Transformer2DModel", dict(
            in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
            text_embed_dim=WIDTH, time_embed_dim=8, condition_dim=4, sample_size=8, rope_axes_dim=(16, 16))),
        _EMBEDS,
    ),
    "cogview3plus": Tiny(
        "CogView3PlusPipeline",
        ("CogView3PlusTransformer2DModel", dict(
            in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
            text_embed_dim=WIDTH, time_embed_dim=8, condition_dim=2, pos_embed_max_size=8, sample_size=8)),
        _EMBEDS, scheduler=("CogVideoXDDIMScheduler", {}),
    ),
    "hidream": Tiny(
        "HiDreamImagePipeline",
        ("HiDreamImageTransformer2DModel", dict(
            patch_size=2, in_channels=4, out_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=8,
            num_attention_heads=4, caption_channels=[WIDTH, WIDTH], text_emb_dim=WIDTH, num_routed_experts=4,
            num_activated_experts=2, axes_dims_rope=(4, 2, 2), max_resolution=(8, 8), llama_layers=(0, 1, 1, 0))),
        {"prompt_embeds_t5": (LENGTH, WIDTH), "prompt_embeds_llama3": (2, LENGTH, WIDTH),
         "pooled_prompt_embeds": (WIDTH,)},
        attributes={"default_sample_size": 8},
    ),
    "kandinsky3": Tiny(
        "Kandinsky3Pipeline",
        ("Kandinsky3UNet", dict(
            in_channels=4, time_embedding_dim=4, groups=2, attention_head_dim=4, layers_per_block=3,
            block_out_channels=(32, 64), cross_attention_dim=4, encoder_hid_dim=WIDTH)),
        {"prompt_embeds": (LENGTH, WIDTH), "attention_mask": (LENGTH,)}, scheduler=("DDPMScheduler", {}),
    ),
    "kandinsky5": Tiny(
        "Kandinsky5T2IPipeline",
        ("Kandinsky5Transformer3DModel", dict(
            in_visual_dim=4, in_text_dim=WIDTH, in_text_dim2=WIDTH, time_dim=8, out_visual_dim=4, model_dim=32,
            ff_dim=32, num_text_blocks=1, num_visual_blocks=2, axes_dims=(4, 6, 6))),
        {"prompt_embeds_qwen": (LENGTH, WIDTH), "prompt_embeds_clip": (WIDTH,), "prompt_cu_seqlens": ()},
        attributes={"resolutions": [(64, 64)]},
    ),
    "stable_cascade_prior": Tiny(
        "StableCascadePriorPipeline",
        ("StableCascadeUNet", {**_CASCADE, "clip_image_in_channels": WIDTH, "clip_text_in_channels": WIDTH}),
        {"prompt_embeds": (LENGTH, WIDTH), "prompt_embeds_pooled": (1, WIDTH)},
        scheduler=("DDPMWuerstchenScheduler", {}), parts={"text_encoder": lambda: clip(projected=True)}, size=512,
    ),
    "deepfloyd_if": Tiny(
        "IFPipeline",
        ("UNet2DConditionModel", {
            **_UNET, "in_channels": 3, "out_channels": 6, "down_block_types": ("SimpleCrossAttnDownBlock2D",) * 2,
            "up_block_types": ("SimpleCrossAttnUpBlock2D",) * 2, "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "encoder_hid_dim": WIDTH, "encoder_hid_dim_type": "text_proj", "addition_embed_type": "text",
            "addition_embed_type_num_heads": 2, "act_fn": "gelu", "resnet_time_scale_shift": "scale_shift",
            "time_embedding_type": "positional", "class_embed_type": None}),
        _EMBEDS, scheduler=("DDPMScheduler", {"variance_type": "learned_range"}), size=8,
        parts={"requires_safety_checker": False}, more={"output_type": "pt"},
    ),
    "bria": Tiny(
        "BriaPipeline", ("BriaTransformer2DModel", _JOINT), _EMBEDS, parts={"vae": lambda: autoencoder(4)}, size=16,
    ),
    "ovis_image": Tiny("OvisImagePipeline", ("OvisImageTransformer2DModel", {**_JOINT, "out_channels": 16}), _EMBEDS,
        more={"negative_prompt": None}),
    "longcat_image": Tiny(
        "LongCatImagePipeline",
        ("LongCatImageTransformer2DModel", {**_JOINT, "in_channels": 64, "pooled_projection_dim": WIDTH}),
        {}, attributes={"_encode_prompt": lambda prompts: embedded(prompts, (LENGTH, WIDTH))},
        more={"enable_prompt_rewrite": False},
    ),
    "krea2": Tiny(
        "Krea2Pipeline",
        ("Krea2Transformer2DModel", dict(
            in_channels=16, num_layers=2, attention_head_dim=16, num_attention_heads=2, num_key_value_heads=1,
            intermediate_size=32, timestep_embed_dim=8, text_hidden_dim=WIDTH, num_text_layers=3,
            text_num_attention_heads=2, text_num_key_value_heads=1, text_intermediate_size=32,
            num_layerwise_text_blocks=1, num_refiner_text_blocks=1, axes_dims_rope=(4, 6, 6))),
        {"prompt_embeds": (LENGTH, 3, WIDTH), "prompt_embeds_mask": (LENGTH,)}, plain={"guidance_scale": 0.0},
        parts={"is_distilled": False, "patch_size": 2},
    ),
    "nucleus_image": Tiny(
        "NucleusMoEImagePipeline",
        ("NucleusMoEImageTransformer2DModel", dict(
            patch_size=2, in_channels=16, out_channels=4, num_layers=4, attention_head_dim=32, num_attention_heads=2,
            joint_attention_dim=WIDTH, axes_dims_rope=(8, 12, 12), num_experts=4, moe_intermediate_dim=16,
            capacity_factors=[8.0] * 4)),
        _MASKED,
    ),
    "hunyuan_image": Tiny(
        "HunyuanImagePipeline",
        ("HunyuanImageTransformer2DModel", dict(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2,
            num_single_layers=2, num_refiner_layers=1, text_embed_dim=WIDTH, text_embed_2_dim=WIDTH,
            rope_axes_dim=(8, 8))),
        {**_MASKED, "prompt_embeds_2": (LENGTH, WIDTH), "prompt_embeds_mask_2": (LENGTH,)}, size=128,
    ),
    "glm_image": Tiny(
        "GlmImagePipeline",
        ("GlmImageTransformer2DModel", dict(
            in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            text_embed_dim=WIDTH, time_embed_dim=8, condition_dim=4, prior_vq_quantizer_codebook_size=32)),
        _EMBEDS, more={"prior_token_ids": torch.zeros(4, 16, dtype=torch.long)},
    ),
    "ernie_image": Tiny(
        "ErnieImagePipeline",
        ("ErnieImageTransformer2DModel", dict(
            hidden_size=32, num_attention_heads=2, num_layers=2, ffn_hidden_size=32, in_channels=16, out_channels=16,
            text_in_dim=WIDTH, rope_axes_dim=(4, 6, 6))),
        _EMBEDS, parts={"vae": _flux2_autoencoder}, size=16, more={"use_pe": False},
    ),
    "lumina": Tiny(
        "LuminaPipeline",
        ("LuminaNextDiT2DModel", dict(
            sample_size=8, in_channels=4, hidden_size=32, num_layers=2, num_attention_heads=2, num_kv_heads=1,
            multiple_of=16, cross_attention_dim=WIDTH)),
        _ATTENDED,
    ),
    "flux_kontext": Tiny(
        "FluxKontextPipeline", ("FluxTransformer2DModel", {**_JOINT, "pooled_projection_dim": WIDTH}), _POOLED,
        guided={"true_cfg_scale": 3.0}, plain={"true_cfg_scale": 1.0}, parts={"vae": lambda: autoencoder(4, shift=0.1)},
        size=16, more={"max_area": 256, "_auto_resize": False, "image": Image.new("RGB", (16, 32), (90, 160, 40))},
    ),
    "sd3_pag": Tiny(
        "StableDiffusion3PAGPipeline",
        ("SD3Transformer2DModel", dict(
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=WIDTH, caption_projection_dim=32, pooled_projection_dim=WIDTH,
            pos_embed_max_size=16)),
        _POOLED, perturbed=True, plain={"guidance_scale": 1.0, "pag_scale": 0.0},
    ),
}  # fmt: skip
_FLOW_SOLVER = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
TINY["flux2_klein_references"] = replace(TINY["flux2_klein"], more={"image": Image.new("RGB", (64, 64), (90, 160, 40))})
TINY |= {  # classes with perturbed attention, on the parts of those without
    "sana_pag": replace(
        TINY["sana_sprint"], pipeline="SanaPAGPipeline", perturbed=True, size=32,
        plain={"guidance_scale": 1.0, "pag_scale": 0.0},
        denoiser=("SanaTransformer2DModel", {**TINY["sana_sprint"].denoiser[1], "guidance_embeds": False}),
        scheduler=("DPMSolverMultistepScheduler", _FLOW_SOLVER),
        more={"use_resolution_binning": False, "negative_prompt": None},
    ),
    "pixart_pag": replace(
        TINY["pixart_alpha"], pipeline="PixArtSigmaPAGPipeline", perturbed=True,
        plain={"guidance_scale": 1.0, "pag_scale": 0.0},
    ),
    "hunyuan_dit_pag": replace(
        TINY["hunyuan_dit"], pipeline="HunyuanDiTPAGPipeline", perturbed=True,
        plain={"guidance_scale": 1.0, "pag_scale": 0.0},
    ),
}  # fmt: skip
