"""Pipelines of many families as a denoiser and a scheduler alone: each is a row, by its name."""

from dataclasses import replace
from typing import Any

import diffusers
import torch

from tests.helpers.pipelines import autoencoder
from tests.helpers.stand_ins import (
    Averaging,
    Unguarded,
    Untold,
    Words,
    layers_of_text,
    parts_of_text,
    seen_by_siglip,
)
from tests.helpers.tiny import EMBEDS, LENGTH, POOLED, WIDTH, Tiny, embedded, picture
from tests.helpers.unets import UNETS

MASKED = {**EMBEDS, "prompt_embeds_mask": (LENGTH,)}
ATTENDED = {**EMBEDS, "prompt_attention_mask": (LENGTH,)}
JOINT = dict(
    in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=WIDTH, axes_dims_rope=(4, 4, 8),
)  # fmt: skip


def flux2_autoencoder() -> Any:
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
        MASKED, guided={"true_cfg_scale": 3.0}, plain={"true_cfg_scale": 1.0},
    ),
    "flux2": Tiny(
        "Flux2Pipeline",
        ("Flux2Transformer2DModel", {**JOINT, "axes_dims_rope": (4, 4, 4, 4), "timestep_guidance_channels": 8}),
        EMBEDS, plain={"guidance_scale": 3.0},
    ),
    "flux2_klein": Tiny(
        "Flux2KleinPipeline",
        ("Flux2Transformer2DModel", {
            **JOINT, "axes_dims_rope": (4, 4, 4, 4), "timestep_guidance_channels": 8, "guidance_embeds": False}),
        EMBEDS, parts={"vae": flux2_autoencoder}, size=16,
    ),
    "chroma": Tiny(
        "ChromaPipeline",
        ("ChromaTransformer2DModel", {
            **JOINT, "approximator_num_channels": 8, "approximator_hidden_dim": 16, "approximator_layers": 1}),
        ATTENDED,
    ),
    "auraflow": Tiny(
        "AuraFlowPipeline",
        ("AuraFlowTransformer2DModel", dict(
            sample_size=8, in_channels=4, num_mmdit_layers=2, num_single_dit_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=WIDTH, caption_projection_dim=32, pos_embed_max_size=64)),
        ATTENDED,
    ),
    "lumina2": Tiny(
        "Lumina2Pipeline",
        ("Lumina2Transformer2DModel", dict(
            sample_size=8, in_channels=4, hidden_size=48, num_layers=2, num_refiner_layers=1, num_attention_heads=2,
            num_kv_heads=1, multiple_of=16, axes_dim_rope=(8, 8, 8), axes_lens=(300, 32, 32), cap_feat_dim=WIDTH)),
        ATTENDED,
    ),
    "pixart_alpha": Tiny(
        "PixArtAlphaPipeline",
        ("PixArtTransformer2DModel", dict(
            sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
            out_channels=8, cross_attention_dim=16, caption_channels=WIDTH, use_additional_conditions=False)),
        ATTENDED, scheduler=("DPMSolverMultistepScheduler", {}),
        more={"use_resolution_binning": False, "negative_prompt": None},
    ),
    "sana_sprint": Tiny(
        "SanaSprintPipeline",
        ("SanaTransformer2DModel", dict(
            in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2, attention_head_dim=8,
            num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=WIDTH,
            sample_size=8, mlp_ratio=2.0, guidance_embeds=True, timestep_scale=1.0)),
        ATTENDED, plain={"guidance_scale": 3.0}, scheduler=("SCMScheduler", {}), size=128,
        more={"use_resolution_binning": False},
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
        EMBEDS,
    ),
    "cogview3plus": Tiny(
        "CogView3PlusPipeline",
        ("CogView3PlusTransformer2DModel", dict(
            in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
            text_embed_dim=WIDTH, time_embed_dim=8, condition_dim=2, pos_embed_max_size=8, sample_size=8)),
        EMBEDS, scheduler=("CogVideoXDDIMScheduler", {}),
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
    "kandinsky5": Tiny(
        "Kandinsky5T2IPipeline",
        ("Kandinsky5Transformer3DModel", dict(
            in_visual_dim=4, in_text_dim=WIDTH, in_text_dim2=WIDTH, time_dim=8, out_visual_dim=4, model_dim=32,
            ff_dim=32, num_text_blocks=1, num_visual_blocks=2, axes_dims=(4, 6, 6))),
        {"prompt_embeds_qwen": (LENGTH, WIDTH), "prompt_embeds_clip": (WIDTH,), "prompt_cu_seqlens": ()},
        attributes={"resolutions": [(64, 64)]},
    ),
    "bria": Tiny(
        "BriaPipeline", ("BriaTransformer2DModel", JOINT), EMBEDS, parts={"vae": lambda: autoencoder(4)}, size=16,
    ),
    "ovis_image": Tiny("OvisImagePipeline", ("OvisImageTransformer2DModel", {**JOINT, "out_channels": 16}), EMBEDS,
        more={"negative_prompt": None}),
    "longcat_image": Tiny(
        "LongCatImagePipeline",
        ("LongCatImageTransformer2DModel", {**JOINT, "in_channels": 64, "pooled_projection_dim": WIDTH}),
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
        MASKED,
    ),
    "hunyuan_image": Tiny(
        "HunyuanImagePipeline",
        ("HunyuanImageTransformer2DModel", dict(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2,
            num_single_layers=2, num_refiner_layers=1, text_embed_dim=WIDTH, text_embed_2_dim=WIDTH,
            rope_axes_dim=(8, 8))),
        {**MASKED, "prompt_embeds_2": (LENGTH, WIDTH), "prompt_embeds_mask_2": (LENGTH,)}, size=128,
    ),
    "glm_image": Tiny(
        "GlmImagePipeline",
        ("GlmImageTransformer2DModel", dict(
            in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            text_embed_dim=WIDTH, time_embed_dim=8, condition_dim=4, prior_vq_quantizer_codebook_size=32)),
        EMBEDS, more={"prior_token_ids": torch.zeros(4, 16, dtype=torch.long)},
    ),
    "ernie_image": Tiny(
        "ErnieImagePipeline",
        ("ErnieImageTransformer2DModel", dict(
            hidden_size=32, num_attention_heads=2, num_layers=2, ffn_hidden_size=32, in_channels=16, out_channels=16,
            text_in_dim=WIDTH, rope_axes_dim=(4, 6, 6))),
        EMBEDS, parts={"vae": flux2_autoencoder}, size=16, more={"use_pe": False},
    ),
    "lumina": Tiny(
        "LuminaPipeline",
        ("LuminaNextDiT2DModel", dict(
            sample_size=8, in_channels=4, hidden_size=32, num_layers=2, num_attention_heads=2, num_kv_heads=1,
            multiple_of=16, cross_attention_dim=WIDTH)),
        ATTENDED,
    ),
    "flux_kontext": Tiny(
        "FluxKontextPipeline", ("FluxTransformer2DModel", {**JOINT, "pooled_projection_dim": WIDTH}), POOLED,
        guided={"true_cfg_scale": 3.0}, plain={"true_cfg_scale": 1.0}, parts={"vae": lambda: autoencoder(4, shift=0.1)},
        size=16, more={"max_area": 256, "_auto_resize": False, "image": picture(16, 32)},
    ),
    "sd3_pag": Tiny(
        "StableDiffusion3PAGPipeline",
        ("SD3Transformer2DModel", dict(
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=WIDTH, caption_projection_dim=32, pooled_projection_dim=WIDTH,
            pos_embed_max_size=16)),
        POOLED, perturbed=True, plain={"guidance_scale": 1.0, "pag_scale": 0.0},
    ),
    "prx": Tiny(
        "PRXPipeline",
        ("PRXTransformer2DModel", dict(
            in_channels=4, context_in_dim=WIDTH, hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=2, axes_dim=[8, 8])),
        ATTENDED, more={"use_resolution_binning": False},
        num_images=1,  # guided, it gives the denoiser two timesteps for however many rows
    ),
    "prx_pixel": Tiny(
        "PRXPixelPipeline",
        ("PRXTransformer2DModel", dict(
            in_channels=3, patch_size=16, context_in_dim=WIDTH, hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=2,
            axes_dim=[8, 8], bottleneck_size=16)),
        ATTENDED, more={"use_resolution_binning": False}, num_images=1,
    ),
    "cosmos2": Tiny(
        "Cosmos2TextToImagePipeline",
        ("CosmosTransformer3DModel", dict(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2, mlp_ratio=2.0,
            text_embed_dim=WIDTH, adaln_lora_dim=4, max_size=(4, 16, 16))),
        EMBEDS, scheduler=("FlowMatchEulerDiscreteScheduler", {"use_karras_sigmas": True}),
        parts={"safety_checker": Unguarded},
    ),
    "bria_fibo": Tiny(
        "BriaFiboPipeline", ("BriaFiboTransformer2DModel", {**JOINT, "text_encoder_dim": WIDTH}), {},
        parts={"text_encoder": Untold},
        attributes={"get_prompt_embeds": layers_of_text},
    ),
    "omnigen": Tiny(
        "OmniGenPipeline",
        ("OmniGenTransformer2DModel", dict(
            hidden_size=32, num_attention_heads=2, num_key_value_heads=2, intermediate_size=32, num_layers=2,
            pad_token_id=0, vocab_size=64, max_position_embeddings=128, original_max_position_embeddings=128,
            rope_scaling={"short_factor": [1.0] * 8, "long_factor": [1.0] * 8}, pos_embed_max_size=16,
            time_step_dim=8)),
        {}, plain={}, scheduler=("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}),
        parts={"tokenizer": Words, "vae": lambda: autoencoder(4, levels=4)},
    ),
    "z_image_omni": Tiny(
        "ZImageOmniPipeline",
        ("ZImageTransformer2DModel", dict(
            in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
            siglip_feat_dim=8, axes_dims=[4, 4, 8], axes_lens=[256, 64, 64])),
        {}, plain={"guidance_scale": 0.0}, attributes={"_encode_prompt": parts_of_text},
    ),
    "qwen_image_edit": Tiny(
        "QwenImageEditPipeline",
        ("QwenImageTransformer2DModel", dict(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=WIDTH, axes_dims_rope=(4, 4, 8))),
        MASKED, guided={"true_cfg_scale": 3.0}, plain={"true_cfg_scale": 1.0},
        parts={"vae": lambda: Averaging(7)}, size=1024, more={"image": picture(16, 32)},
    ),
}  # fmt: skip
FLOW_SOLVER = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
TINY["flux2_klein_references"] = replace(TINY["flux2_klein"], more={"image": picture(64, 64)})
TINY["flux2_klein_kv"] = replace(TINY["flux2_klein"], pipeline="Flux2KleinKVPipeline")
TINY["flux2_klein_kv_references"] = replace(TINY["flux2_klein_kv"], more={"image": picture(64, 64)})
TINY["omnigen_pictures"] = replace(
    TINY["omnigen"], wording="{} <img><|image_1|></img>", more={"input_images": [[picture(64, 64)]] * 4}
)
TINY["z_image_omni_pictures"] = replace(
    TINY["z_image_omni"], size=16, more={"image": picture(64, 64)},
    parts={"vae": lambda: autoencoder(4, shift=0.1).bfloat16()},
    attributes={"_encode_prompt": parts_of_text, "prepare_siglip_embeds": seen_by_siglip},
)  # fmt: skip
TINY |= UNETS | {  # classes with perturbed attention, on the parts of those without
    "sana_pag": replace(
        TINY["sana_sprint"], pipeline="SanaPAGPipeline", perturbed=True, size=32,
        plain={"guidance_scale": 1.0, "pag_scale": 0.0},
        denoiser=("SanaTransformer2DModel", {**TINY["sana_sprint"].denoiser[1], "guidance_embeds": False}),
        scheduler=("DPMSolverMultistepScheduler", FLOW_SOLVER),
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
