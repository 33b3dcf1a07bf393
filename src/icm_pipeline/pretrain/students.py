"""The siblings' architectures at the embedded model's size: how each reads captions, predicts, and becomes a pipeline.

Each shares the embedded model's tokenizer, its trained text encoder and, where its pipeline takes one, its autoencoder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    StableDiffusionXLPipeline,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from icm_pipeline.pretrain.autoencoder import LATENT_CHANNELS
from icm_pipeline.pretrain.diffusion import TEXT_WIDTH, build_scheduler, build_unet

IMAGE_SIZE = 64
TIMESTEPS = 1000
FLOW_SHIFT = 2.0  # a flow of shift 2 spends its steps on about the same noise levels as the embedded model's schedule


@dataclass(frozen=True)
class Captions:
    """A batch of captions as the embedded text encoder reads them."""

    ids: Tensor  # tokens [b, n]
    mask: Tensor  # [b, n], 1 where there is no padding
    silent: Tensor  # [b], which captions are empty
    hidden: tuple[Tensor, ...]  # states [b, n, d] before and after each layer
    final: Tensor  # the last of them, normalised
    pooled: Tensor  # its state at the end token [b, d]


class XLStudent(nn.Module):
    """SDXL: the second last layer of two text encoders side by side; pooled text and the picture's size join the time.

    The first encoder is the embedded one and stays as it is; the second learns. An empty caption is all zeros.
    """

    flow = False
    guided = False

    def __init__(self, text_encoder: CLIPTextModel, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        config = CLIPTextConfig(**{**text_encoder.config.to_dict(), "projection_dim": TEXT_WIDTH})
        self.text_encoder_2 = CLIPTextModelWithProjection(config)
        _copy_matching(text_encoder, self.text_encoder_2)
        self.unet = build_unet(
            4, 2 * TEXT_WIDTH, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=16,
            projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 16,
        )  # fmt: skip
        self.unet.to(memory_format=torch.channels_last)

    def forward(self, noisy: Tensor, timesteps: Tensor, guidance: Tensor, captions: Captions) -> Tensor:
        second = self.text_encoder_2(captions.ids, output_hidden_states=True)
        said = (~captions.silent).float()
        states = torch.cat([captions.hidden[-2], second.hidden_states[-2]], dim=-1) * said[:, None, None]
        size = torch.tensor([IMAGE_SIZE, IMAGE_SIZE, 0, 0, IMAGE_SIZE, IMAGE_SIZE], device=noisy.device)
        added = {"text_embeds": second.text_embeds * said[:, None], "time_ids": size.float().expand(len(noisy), 6)}
        return self.unet(noisy, timesteps, states, added_cond_kwargs=added).sample

    def pipeline(self, vae: Any, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> StableDiffusionXLPipeline:
        self.unet.to(memory_format=torch.contiguous_format)
        return StableDiffusionXLPipeline(
            vae=vae, text_encoder=text_encoder, text_encoder_2=self.text_encoder_2, tokenizer=tokenizer,
            tokenizer_2=tokenizer, unet=self.unet, scheduler=build_scheduler(), add_watermarker=False,
        )  # fmt: skip


class SanaStudent(nn.Module):
    """SANA: linear self-attention, cross-attention to the caption's tokens, no position but its convolutions' edges."""

    flow = True
    guided = False

    def __init__(self, text_encoder: CLIPTextModel, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.transformer = SanaTransformer2DModel(
            in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, sample_size=8, patch_size=1, num_layers=8,
            num_attention_heads=5, attention_head_dim=32, num_cross_attention_heads=5, cross_attention_head_dim=32,
            cross_attention_dim=160, caption_channels=TEXT_WIDTH, mlp_ratio=2.0,
        )  # fmt: skip

    def forward(self, noisy: Tensor, timesteps: Tensor, guidance: Tensor, captions: Captions) -> Tensor:
        return self.transformer(
            noisy.contiguous(), captions.final, timesteps, encoder_attention_mask=captions.mask, return_dict=False
        )[0]

    def pipeline(self, vae: Any, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> SanaPipeline:
        scheduler = DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT
        )
        return SanaPipeline(tokenizer, text_encoder, vae, self.transformer, scheduler)


class FluxStudent(nn.Module):
    """FLUX.1-dev: double and single blocks over 2 x 2 patches; guidance is distilled too, its scale an input."""

    flow = True
    guided = True

    def __init__(self, text_encoder: CLIPTextModel, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.transformer = FluxTransformer2DModel(
            in_channels=4 * LATENT_CHANNELS, num_layers=3, num_single_layers=6, attention_head_dim=40,
            num_attention_heads=4, joint_attention_dim=TEXT_WIDTH, pooled_projection_dim=TEXT_WIDTH,
            axes_dims_rope=(8, 16, 16), guidance_embeds=True,
        )  # fmt: skip

    def forward(self, noisy: Tensor, timesteps: Tensor, guidance: Tensor, captions: Captions) -> Tensor:
        size, channels, height, width = noisy.shape
        rows = FluxPipeline._prepare_latent_image_ids(size, height // 2, width // 2, noisy.device, noisy.dtype)
        predicted = self.transformer(
            hidden_states=FluxPipeline._pack_latents(noisy, size, channels, height, width),
            timestep=timesteps / TIMESTEPS, guidance=guidance, pooled_projections=captions.pooled,
            encoder_hidden_states=captions.final, txt_ids=rows.new_zeros(captions.final.shape[1], 3),
            img_ids=rows, return_dict=False,
        )[0]  # fmt: skip
        return FluxPipeline._unpack_latents(predicted, IMAGE_SIZE, IMAGE_SIZE, IMAGE_SIZE // height)

    def pipeline(self, vae: Any, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> FluxPipeline:
        vae.register_to_config(shift_factor=0.0)  # its latents have mean 0; FLUX asks for a number
        scheduler = FlowMatchEulerDiscreteScheduler(shift=FLOW_SHIFT)
        return FluxPipeline(scheduler, vae, text_encoder, tokenizer, text_encoder, tokenizer, self.transformer)


STUDENTS: dict[str, Callable[[CLIPTextModel, int], Any]] = {
    "tiny_sdxl": XLStudent,
    "tiny_sana": SanaStudent,
    "tiny_flux": FluxStudent,
}


def _copy_matching(source: nn.Module, target: nn.Module) -> None:
    """Copy every weight that both modules have under the same name, but for a prefix that only one of them has."""
    own = target.state_dict()
    for name, value in source.state_dict().items():
        for candidate in (name, f"text_model.{name}", name.removeprefix("text_model.")):
            if candidate in own:
                own[candidate].copy_(value)
                break
        else:
            raise ValueError(f"{name} of the text encoder has no counterpart")
