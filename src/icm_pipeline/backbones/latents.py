"""Latents' shapes and decoding, shared by families."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from icm_pipeline.backbones.base import BackboneError


def decode_shifted(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode latents that were scaled and shifted by the autoencoder's factors."""
    config = pipe.vae.config
    shifted = latents.to(pipe.vae.dtype) / config.scaling_factor + config.shift_factor
    return pipe.vae.decode(shifted, return_dict=False)[0]


def describe_sample(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, int | None, int | None]:
    """Describe a call whose first argument is the batch of latents."""
    sample = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
    if not isinstance(sample, Tensor):
        raise BackboneError("The denoiser was called without a tensor of latents.")
    return len(sample), None, None


def latent_shape(pipe: Any, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of one image's latents: the denoiser's channels, the autoencoder's grid."""
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    return denoiser.config.in_channels, height // pipe.vae_scale_factor, width // pipe.vae_scale_factor


def decode_scaled(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode latents that were scaled by the autoencoder's factor."""
    return pipe.vae.decode(latents.to(pipe.vae.dtype) / pipe.vae.config.scaling_factor, return_dict=False)[0]
