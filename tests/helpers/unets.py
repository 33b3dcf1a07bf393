"""Pipelines of UNets as a denoiser and a scheduler alone: each is a row, by its name."""

from dataclasses import replace

import torch

from tests.helpers.pipelines import autoencoder, clip
from tests.helpers.tiny import EMBEDS, LENGTH, POOLED, WIDTH, Tiny, picture

UNET = dict(
    sample_size=8, block_out_channels=(32, 64), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",) * 2,
    up_block_types=("CrossAttnUpBlock2D",) * 2, attention_head_dim=8, norm_num_groups=8, cross_attention_dim=WIDTH,
)  # fmt: skip
CASCADE = dict(
    conditioning_dim=32, block_out_channels=(16, 32), num_attention_heads=(-1, 2), down_num_layers_per_block=(1, 1),
    up_num_layers_per_block=(1, 1), block_types_per_layer=(("SDCascadeResBlock", "SDCascadeTimestepBlock"), (
        "SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock")), switch_level=(False,),
    clip_text_pooled_in_channels=WIDTH, timestep_ratio_embedding_dim=8, dropout=0.0,
)  # fmt: skip

UNETS: dict[str, Tiny] = {
    "lcm": Tiny(
        "LatentConsistencyModelPipeline", ("UNet2DConditionModel", {**UNET, "time_cond_proj_dim": 8}), EMBEDS,
        plain={"guidance_scale": 3.0}, scheduler=("LCMScheduler", {}), parts={"requires_safety_checker": False},
    ),
    "kolors": Tiny(
        "KolorsPipeline",
        ("UNet2DConditionModel", {
            **UNET, "encoder_hid_dim": WIDTH, "encoder_hid_dim_type": "text_proj", "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": WIDTH + 6 * 8}),
        POOLED, scheduler=("EulerDiscreteScheduler", {}),
    ),
    "kandinsky3": Tiny(
        "Kandinsky3Pipeline",
        ("Kandinsky3UNet", dict(
            in_channels=4, time_embedding_dim=4, groups=2, attention_head_dim=4, layers_per_block=3,
            block_out_channels=(32, 64), cross_attention_dim=4, encoder_hid_dim=WIDTH)),
        {"prompt_embeds": (LENGTH, WIDTH), "attention_mask": (LENGTH,)}, scheduler=("DDPMScheduler", {}),
    ),
    "stable_cascade_prior": Tiny(
        "StableCascadePriorPipeline",
        ("StableCascadeUNet", {**CASCADE, "clip_image_in_channels": WIDTH, "clip_text_in_channels": WIDTH}),
        {"prompt_embeds": (LENGTH, WIDTH), "prompt_embeds_pooled": (1, WIDTH)},
        scheduler=("DDPMWuerstchenScheduler", {}), parts={"text_encoder": lambda: clip(projected=True)}, size=512,
    ),
    "deepfloyd_if": Tiny(
        "IFPipeline",
        ("UNet2DConditionModel", {
            **UNET, "in_channels": 3, "out_channels": 6, "down_block_types": ("SimpleCrossAttnDownBlock2D",) * 2,
            "up_block_types": ("SimpleCrossAttnUpBlock2D",) * 2, "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "encoder_hid_dim": WIDTH, "encoder_hid_dim_type": "text_proj", "addition_embed_type": "text",
            "addition_embed_type_num_heads": 2, "act_fn": "gelu", "resnet_time_scale_shift": "scale_shift",
            "time_embedding_type": "positional", "class_embed_type": None}),
        EMBEDS, scheduler=("DDPMScheduler", {"variance_type": "learned_range"}), size=8,
        parts={"requires_safety_checker": False}, more={"output_type": "pt"},
    ),
    "instruct_pix2pix": Tiny(
        "StableDiffusionInstructPix2PixPipeline", ("UNet2DConditionModel", {**UNET, "in_channels": 8}), EMBEDS,
        scheduler=("DDIMScheduler", {}), parts={"vae": lambda: autoencoder(4), "requires_safety_checker": False},
        more={"image": picture(16, 16)},
    ),
    "stable_cascade_decoder": Tiny(
        "StableCascadeDecoderPipeline",
        ("StableCascadeUNet", {**CASCADE, "in_channels": 4, "out_channels": 4, "effnet_in_channels": 16}),
        {"prompt_embeds": (LENGTH, WIDTH), "prompt_embeds_pooled": (1, WIDTH)},
        scheduler=("DDPMWuerstchenScheduler", {}), parts={"latent_dim_scale": 2.0},
        more={"image_embeddings": torch.ones(4, 16, 4, 4)},
    ),
}  # fmt: skip
UNETS["kolors_pag"] = replace(
    UNETS["kolors"], pipeline="KolorsPAGPipeline", perturbed=True, plain={"guidance_scale": 1.0, "pag_scale": 0.0}
)
UNETS["sdxl_pag"] = replace(
    UNETS["kolors_pag"], pipeline="StableDiffusionXLPAGPipeline",
    denoiser=("UNet2DConditionModel", {
        **UNET, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": WIDTH + 6 * 8}),
)  # fmt: skip
