"""Train the AutoencoderKL: 64 x 64 pictures to 8 x 8 latents and back, crisp enough for flat vector art."""

from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL
from torch import Tensor

from icm_pipeline.pretrain.dataset import Portraits
from icm_pipeline.pretrain.training import Loss, TrainingPlan, TrainingRun, train

LATENT_CHANNELS = 8
KL_WEIGHT = 2e-4
EDGE_WEIGHT = 1.0


def build_autoencoder(seed: int) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=LATENT_CHANNELS, block_out_channels=(32, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1, norm_num_groups=16, sample_size=64, mid_block_add_attention=True,
    )  # fmt: skip


def to_tensor(pixels: Tensor) -> Tensor:
    """Turn uint8 pixels [b, h, w, 3] into floats [b, 3, h, w] in -1..1."""
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def edge_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean absolute difference of the pictures' finite differences: what blur gets wrong."""
    across = (a[..., 1:] - a[..., :-1]) - (b[..., 1:] - b[..., :-1])
    down = (a[..., 1:, :] - a[..., :-1, :]) - (b[..., 1:, :] - b[..., :-1, :])
    return across.abs().mean() + down.abs().mean()


def train_autoencoder(portraits: Portraits, plan: TrainingPlan, run: TrainingRun) -> AutoencoderKL:
    """Minimise L1 + edge L1 + a small KL term; the latents' scale is measured afterwards and kept in the config."""
    pixels = torch.from_numpy(portraits.pixels)
    model = build_autoencoder(plan.seed)

    def loss(model: Any, generator: torch.Generator) -> Loss:
        rows = torch.randint(len(pixels), (plan.batch_size,), generator=generator)
        noise = torch.randn(plan.batch_size, LATENT_CHANNELS, 8, 8, generator=generator).to(plan.device)
        images = to_tensor(pixels[rows]).to(plan.device)
        posterior = model.encode(images).latent_dist
        latents = posterior.mean + posterior.std * noise
        decoded = model.decode(latents).sample.float()
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        distance = (decoded - images).abs().mean()
        edges = edge_distance(decoded, images)
        return distance + EDGE_WEIGHT * edges + KL_WEIGHT * kl, {"l1": distance, "edges": edges, "kl": kl}

    train("autoencoder", model, loss, plan, run)
    standardise_latents(model, pixels[:2000])
    return model


@torch.no_grad()
def standardise_latents(model: AutoencoderKL, pixels: Tensor) -> None:
    """Give every latent channel mean 0 and variance 1 by folding the affine map into the model's 1 x 1 convolutions.

    What the autoencoder computes from picture to picture stays the same; the scaling factor becomes 1.
    """
    latents = encode_portraits(model, pixels).double()
    mean, std = latents.mean((0, 2, 3)).to(model.device), latents.std((0, 2, 3)).to(model.device)
    before, after, c = model.quant_conv, model.post_quant_conv, len(mean)
    after.bias += (after.weight[:, :, 0, 0].double() @ mean).float()
    after.weight *= std.float().view(1, -1, 1, 1)
    before.weight[:c] /= std.float().view(-1, 1, 1, 1)
    before.bias[:c] = ((before.bias[:c].double() - mean) / std).float()
    before.bias[c:] -= 2 * std.log().float()
    model.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def encode_portraits(model: AutoencoderKL | AutoencoderDC, pixels: Tensor, batch_size: int = 200) -> Tensor:
    """Return the latents [n, 8, 8, 8], unscaled; of a variational autoencoder the posterior means."""
    parts = []
    for batch in pixels.split(batch_size):
        encoded = model.encode(to_tensor(batch).to(model.device))
        latents = encoded.latent_dist.mean if isinstance(model, AutoencoderKL) else encoded.latent
        parts.append(latents.float().cpu())
    return torch.cat(parts)


def build_deep_compression(seed: int) -> AutoencoderDC:
    torch.manual_seed(seed)
    return AutoencoderDC(
        latent_channels=LATENT_CHANNELS, scaling_factor=1.0, encoder_qkv_multiscales=((),) * 4,
        decoder_qkv_multiscales=((),) * 4, encoder_block_types="ResBlock", decoder_block_types="ResBlock",
        encoder_block_out_channels=(32, 32, 64, 128), decoder_block_out_channels=(32, 32, 64, 128),
        encoder_layers_per_block=(1, 1, 1, 1), decoder_layers_per_block=(1, 1, 2, 2),
    )  # fmt: skip


def train_deep_compression(
    portraits: Portraits, latents: Tensor, plan: TrainingPlan, run: TrainingRun
) -> AutoencoderDC:
    """Train SANA's kind of autoencoder on the latents [n, 8, 8, 8] of another, so that both share one latent space.

    The encoder learns to give these latents, the decoder to draw the portraits from them.
    """
    pixels = torch.from_numpy(portraits.pixels)
    model = build_deep_compression(plan.seed)

    def loss(model: Any, generator: torch.Generator) -> Loss:
        rows = torch.randint(len(pixels), (plan.batch_size,), generator=generator)
        images, wanted = to_tensor(pixels[rows]).to(plan.device), latents[rows].to(plan.device)
        decoded = model.decode(wanted).sample.float()
        misplaced = (model.encode(images).latent.float() - wanted).square().mean()
        distance = (decoded - images).abs().mean()
        edges = edge_distance(decoded, images)
        return distance + EDGE_WEIGHT * edges + misplaced, {"l1": distance, "edges": edges, "latents": misplaced}

    train("deep_compression", model, loss, plan, run)
    return model
