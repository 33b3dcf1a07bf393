"""Denoisers of the full-size architectures by their published configurations, and the sites they should have."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AuraFlowTransformer2DModel,
    ChromaTransformer2DModel,
    CogView3PlusTransformer2DModel,
    CogView4Transformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    HiDreamImageTransformer2DModel,
    HunyuanDiT2DModel,
    HunyuanImageTransformer2DModel,
    Kandinsky5Transformer3DModel,
    Krea2Transformer2DModel,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    NucleusMoEImageTransformer2DModel,
    OmniGenTransformer2DModel,
    OvisImageTransformer2DModel,
    PixArtTransformer2DModel,
    PRXTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.families.auraflow import AURAFLOW
from icm_pipeline.backbones.families.chroma import CHROMA
from icm_pipeline.backbones.families.cogview import COGVIEW3PLUS, COGVIEW4
from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.families.flux2 import FLUX2, FLUX2_KLEIN
from icm_pipeline.backbones.families.hidream import HIDREAM
from icm_pipeline.backbones.families.hunyuan_dit import HUNYUAN_DIT
from icm_pipeline.backbones.families.hunyuan_image import HUNYUAN_IMAGE
from icm_pipeline.backbones.families.kandinsky import KANDINSKY5
from icm_pipeline.backbones.families.krea2 import KREA2
from icm_pipeline.backbones.families.lumina import LUMINA
from icm_pipeline.backbones.families.lumina2 import LUMINA2
from icm_pipeline.backbones.families.nucleus_image import NUCLEUS_IMAGE
from icm_pipeline.backbones.families.omnigen import OMNIGEN
from icm_pipeline.backbones.families.ovis_image import OVIS_IMAGE
from icm_pipeline.backbones.families.pixart import PIXART
from icm_pipeline.backbones.families.prx import PRX
from icm_pipeline.backbones.families.qwen_image import QWEN_IMAGE
from icm_pipeline.backbones.families.sana import SANA
from icm_pipeline.backbones.families.sd3 import SD3
from icm_pipeline.backbones.families.stable_diffusion import KOLORS, SDXL, STABLE_DIFFUSION
from icm_pipeline.backbones.families.z_image import Z_IMAGE
from tests.helpers.pipelines import WIDTH, build


def sd15(**more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(**{"sample_size": 64, "cross_attention_dim": 768, **more})


def sdxl(**more: Any) -> UNet2DConditionModel:
    published = dict(
        sample_size=128, block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20), cross_attention_dim=2048,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )  # fmt: skip
    return UNet2DConditionModel(**{**published, **more})


def kolors() -> UNet2DConditionModel:
    return sdxl(
        encoder_hid_dim=4096, encoder_hid_dim_type="text_proj", projection_class_embeddings_input_dim=4096 + 6 * 256
    )


def hunyuan_dit() -> HunyuanDiT2DModel:
    return HunyuanDiT2DModel(sample_size=128, in_channels=4, patch_size=2, num_layers=40)


def lumina() -> LuminaNextDiT2DModel:
    return LuminaNextDiT2DModel(num_layers=24, num_kv_heads=8)


def omnigen() -> OmniGenTransformer2DModel:
    return OmniGenTransformer2DModel(rope_scaling={"short_factor": [1.0] * 48, "long_factor": [1.0] * 48})


def hidream() -> HiDreamImageTransformer2DModel:
    return HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=16, caption_channels=[4096, 4096], axes_dims_rope=(64, 32, 32)
    )  # fmt: skip


def kandinsky5() -> Kandinsky5Transformer3DModel:
    return Kandinsky5Transformer3DModel(
        in_visual_dim=16, out_visual_dim=16, model_dim=2560, ff_dim=10240, num_visual_blocks=50, axes_dims=(32, 48, 48)
    )  # fmt: skip


def narrow(name: str) -> Any:
    """Build a pipeline of sd15 or sdxl whose UNet has all layers of the full-size one, but for their widths."""
    pipe, few = build({"sd15": "sd"}.get(name, name)), {"sample_size": 8, "norm_num_groups": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "sd15":
            unet = sd15(block_out_channels=(32,) * 4, cross_attention_dim=WIDTH, **few)
        else:
            unet = sdxl(
                block_out_channels=(32,) * 3, attention_head_dim=(4,) * 3, cross_attention_dim=2 * WIDTH,
                addition_time_embed_dim=8, projection_class_embeddings_input_dim=WIDTH + 6 * 8, **few,
            )  # fmt: skip
    pipe.register_modules(unet=unet.eval())
    return pipe


def sd3(**more: Any) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=128, num_layers=24, num_attention_heads=24, attention_head_dim=64, joint_attention_dim=4096,
        caption_projection_dim=1536, pooled_projection_dim=2048, pos_embed_max_size=192, **more,
    )  # fmt: skip


def sd35_medium() -> SD3Transformer2DModel:
    return sd3(dual_attention_layers=tuple(range(13)), qk_norm="rms_norm")


def cogview4() -> CogView4Transformer2DModel:
    return CogView4Transformer2DModel(num_layers=28, num_attention_heads=32, attention_head_dim=128)


def flux2_klein() -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        num_layers=5, num_single_layers=20, num_attention_heads=24, joint_attention_dim=7680, guidance_embeds=False
    )


def nucleus_image() -> NucleusMoEImageTransformer2DModel:
    return NucleusMoEImageTransformer2DModel(
        out_channels=16, num_layers=32, num_key_value_heads=4, joint_attention_dim=4096, num_experts=64,
        dense_moe_strategy="leave_first_three_blocks_dense",
    )  # fmt: skip


CASES: dict[str, tuple[Family, Callable[[], Any], dict[str, int], dict[int, int]]] = {
    # family, denoiser, sites by kind, self-attention layers by width
    "sd15": (
        STABLE_DIFFUSION, sd15, {"self_attention": 16, "cross_attention": 16, "feed_forward": 16},
        {320: 5, 640: 5, 1280: 6},
    ),
    "sdxl": (
        SDXL, sdxl, {"self_attention": 70, "cross_attention": 70, "feed_forward": 70}, {640: 10, 1280: 60},
    ),
    "sana": (
        SANA, SanaTransformer2DModel, {"self_attention": 20, "cross_attention": 20, "feed_forward": 20}, {2240: 20},
    ),
    "flux": (FLUX, FluxTransformer2DModel, {"self_attention": 57, "feed_forward": 19}, {3072: 57}),
    "chroma": (CHROMA, ChromaTransformer2DModel, {"self_attention": 57, "feed_forward": 19}, {3072: 57}),
    "sd3": (SD3, sd3, {"self_attention": 24, "feed_forward": 24}, {1536: 24}),
    "sd35_medium": (SD3, sd35_medium, {"self_attention": 37, "feed_forward": 24}, {1536: 37}),
    "pixart": (
        PIXART, PixArtTransformer2DModel, {"self_attention": 28, "cross_attention": 28, "feed_forward": 28}, {1152: 28},
    ),
    "kolors": (
        KOLORS, kolors, {"self_attention": 70, "cross_attention": 70, "feed_forward": 70}, {640: 10, 1280: 60},
    ),
    "hunyuan_dit": (
        HUNYUAN_DIT, hunyuan_dit, {"self_attention": 40, "cross_attention": 40, "feed_forward": 40}, {1408: 40},
    ),
    "lumina": (LUMINA, lumina, {"self_attention": 24, "feed_forward": 24}, {2304: 24}),
    "hidream": (HIDREAM, hidream, {"self_attention": 48, "feed_forward": 48}, {2560: 48}),
    "kandinsky5": (
        KANDINSKY5, kandinsky5, {"self_attention": 50, "cross_attention": 50, "feed_forward": 50}, {2560: 50},
    ),
    "prx": (PRX, PRXTransformer2DModel, {"self_attention": 16, "feed_forward": 16}, {1792: 16}),
    "omnigen": (OMNIGEN, omnigen, {"self_attention": 32, "feed_forward": 32}, {3072: 32}),
    "auraflow": (AURAFLOW, AuraFlowTransformer2DModel, {"self_attention": 36, "feed_forward": 36}, {3072: 36}),
    "cogview3plus": (
        COGVIEW3PLUS, CogView3PlusTransformer2DModel, {"self_attention": 30, "feed_forward": 30}, {2560: 30},
    ),
    "lumina2": (LUMINA2, Lumina2Transformer2DModel, {"self_attention": 26, "feed_forward": 26}, {2304: 26}),
    "z_image": (Z_IMAGE, ZImageTransformer2DModel, {"self_attention": 30, "feed_forward": 30}, {3840: 30}),
    "qwen_image": (QWEN_IMAGE, QwenImageTransformer2DModel, {"self_attention": 60, "feed_forward": 60}, {3072: 60}),
    "ovis_image": (OVIS_IMAGE, OvisImageTransformer2DModel, {"self_attention": 33, "feed_forward": 6}, {3072: 33}),
    "cogview4": (COGVIEW4, cogview4, {"self_attention": 28}, {4096: 28}),
    "flux2": (FLUX2, Flux2Transformer2DModel, {"self_attention": 56, "feed_forward": 8}, {6144: 56}),
    "krea2": (KREA2, Krea2Transformer2DModel, {"self_attention": 28, "feed_forward": 28}, {6144: 28}),
    "hunyuan_image": (
        HUNYUAN_IMAGE, HunyuanImageTransformer2DModel, {"self_attention": 60, "feed_forward": 20}, {3584: 60},
    ),
    "nucleus_image": (NUCLEUS_IMAGE, nucleus_image, {"self_attention": 32, "feed_forward": 32}, {2048: 32}),
    "flux2_klein": (FLUX2_KLEIN, flux2_klein, {"self_attention": 25, "feed_forward": 5}, {3072: 25}),
}  # fmt: skip
