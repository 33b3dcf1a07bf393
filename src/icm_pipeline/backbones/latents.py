"""Latents' shapes and decoding, shared by families."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from icm_pipeline.backbones.base import BackboneError, Described


def decode_shifted(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode latents that were scaled and shifted by the autoencoder's factors; DC-AE has no shift."""
    config = pipe.vae.config
    shifted = latents.to(pipe.vae.dtype) / config.scaling_factor + getattr(config, "shift_factor", 0.0)
    return pipe.vae.decode(shifted, return_dict=False)[0]


def decode_film(pipe: Any, latents: Tensor) -> Tensor:
    """Decode latents [b, c, 1, h, w], which were scaled channel by channel, as the first frame of a film."""
    mean, std = _of_channels(pipe, latents)
    return pipe.vae.decode(latents / (1.0 / std) + mean, return_dict=False)[0][:, :, 0]


def decode_by_channel(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode latents [b, c, h, w] that were scaled channel by channel."""
    latents = latents.to(pipe.vae.dtype)
    mean, std = _of_channels(pipe, latents)
    return pipe.vae.decode(latents * std + mean, return_dict=False)[0]


def _of_channels(pipe: Any, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the deviation of an autoencoder's channels, for latents [b, c, ...]."""
    shape, config = (1, -1, *(1,) * (latents.dim() - 2)), pipe.vae.config
    return latents.new_tensor(config.latents_mean).view(shape), latents.new_tensor(config.latents_std).view(shape)


def describe_sample(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
    """Describe a call whose first argument is the batch of latents."""
    sample = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
    if not isinstance(sample, Tensor):
        raise BackboneError("The denoiser was called without a tensor of latents.")
    return Described(sample, len(sample))


def describe_patches(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
    """Describe a call of a transformer that cuts its latents [b, c, h, w] into patches and keeps their number."""
    said, patch = describe_sample(pipe, args, kwargs), pipe.transformer.config.patch_size
    patch = patch if isinstance(patch, int) else patch[-1]
    num_tokens = (said.latents.shape[-2] // patch) * (said.latents.shape[-1] // patch)
    num_text = _num_text_tokens(args, kwargs)
    return said._replace(
        num_image_tokens=num_tokens, num_text_tokens=num_text, skips_layers=kwargs.get("skip_layers") is not None
    )


def describe_packed(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
    """Describe a call of a transformer that is given its latents as tokens [b, s, c]."""
    said = describe_sample(pipe, args, kwargs)
    return said._replace(num_image_tokens=said.latents.shape[1], num_text_tokens=_num_text_tokens(args, kwargs))


def describe_references(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
    """Describe a call whose tokens of reference pictures stand beside the image's own, under larger ids."""
    said, ids = describe_packed(pipe, args, kwargs), kwargs["img_ids"]
    planes = (ids[0] if ids.dim() == 3 else ids)[:, 0]
    return said._replace(num_image_tokens=int((planes == planes.min()).sum()))


def describe_grid(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
    """Describe a call of a transformer that cuts its latents [b, f, h, w, c] into patches (f, h, w)."""
    said, patch = describe_sample(pipe, args, kwargs), pipe.transformer.config.patch_size
    frames, height, width = said.latents.shape[1:4]
    return said._replace(num_image_tokens=(frames // patch[0]) * (height // patch[1]) * (width // patch[2]))


def _num_text_tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """Return how many tokens a call's text has, None where it is not given by its usual name."""
    text = kwargs.get("encoder_hidden_states")
    return text.shape[1] if isinstance(text, Tensor) and text.dim() == 3 else None


def latent_shape(pipe: Any, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of one image's latents: the denoiser's channels, the autoencoder's grid."""
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    return denoiser.config.in_channels, height // pipe.vae_scale_factor, width // pipe.vae_scale_factor


def packed_shape(pipe: Any, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of one image's latents before `pack`, which makes a token of four places."""
    factor = pipe.vae_scale_factor
    return pipe.transformer.config.in_channels // 4, height // factor, width // factor


def pack(pipe: Any, latents: Tensor) -> Tensor:
    """Return latents [b, c, h, w] as tokens [b, s, 4 c]."""
    return pipe._pack_latents(latents, *latents.shape)


def decode_scaled(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode latents that were scaled by the autoencoder's factor."""
    return pipe.vae.decode(latents.to(pipe.vae.dtype) / pipe.vae.config.scaling_factor, return_dict=False)[0]
