"""The kernel that computes a denoiser's attention: torch's own, or one of a package that diffusers hands over to.

All of them compute the same attention up to rounding; quantised ones are left out, as they change the images.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from diffusers.models.attention_dispatch import attention_backend
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from icm_pipeline.backbones.base import BackboneError

TORCH_KERNELS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
PACKAGE_KERNELS = {"flash_attn": "flash", "flash_attn_3": "_flash_3", "xformers": "xformers"}  # diffusers' names
NONE_TAKES_IT = ("No available kernel", "No viable backend")  # how torch's errors begin


def check_kernel(name: str | None, device: str, dtype: torch.dtype) -> None:
    """Raise BackboneError with the choices for a kernel that is not known or that torch does not have for a device."""
    if name is None or name in PACKAGE_KERNELS:
        return
    if name not in TORCH_KERNELS:
        raise BackboneError(f"model.attention_kernel={name} is not known. {_choices(device, dtype)}")
    if not _works(name, device, dtype):
        raise BackboneError(
            f"model.attention_kernel={name} does not work on {device} in {str(dtype).removeprefix('torch.')}. "
            f"{_choices(device, dtype)}"
        )


def attention_kernel(name: str | None, denoiser: nn.Module) -> Callable[..., Any] | None:
    """Return around(forward, *args, **kwargs), which runs a denoiser's forward with a kernel; None where torch chooses.

    Raises BackboneError if a package's kernel cannot be used; so does the forward of a model whose attention the kernel
    cannot compute.
    """
    if name is None:
        return None
    within = _torch_kernel(name) if name in TORCH_KERNELS else _package_kernel(name, denoiser)

    def around(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with within():
            return forward(*args, **kwargs)

    return around


def _torch_kernel(name: str) -> Callable[[], AbstractContextManager[None]]:
    @contextmanager
    def within() -> Iterator[None]:
        try:
            with sdpa_kernel(TORCH_KERNELS[name]):
                yield
        except RuntimeError as error:
            if not str(error).startswith(NONE_TAKES_IT):
                raise
            raise BackboneError(
                f"model.attention_kernel={name} cannot compute this model's attention (its masks or its head size). "
                "Choose another, or null for the best that can."
            ) from error

    return within


def _package_kernel(name: str, denoiser: nn.Module) -> Callable[[], AbstractContextManager[None]]:
    processors = [getattr(module, "processor", None) for module in denoiser.modules()]
    if not any(hasattr(processor, "_attention_backend") for processor in processors):
        raise BackboneError(
            f"model.attention_kernel={name} cannot be given to a {type(denoiser).__name__}, whose attention is always "
            f"torch's. Choose one of: {', '.join(TORCH_KERNELS)}, or null."
        )
    try:
        with attention_backend(PACKAGE_KERNELS[name]):
            pass
    except RuntimeError as error:
        raise BackboneError(f"model.attention_kernel={name} cannot be used here: {error}") from error
    return lambda: attention_backend(PACKAGE_KERNELS[name])


def _choices(device: str, dtype: torch.dtype) -> str:
    working = [name for name in TORCH_KERNELS if _works(name, device, dtype)]
    return f"Choose one of: {', '.join(working)}; with its package installed: {', '.join(PACKAGE_KERNELS)}; or null."


def _works(name: str, device: str, dtype: torch.dtype) -> bool:
    """Say whether torch has a kernel for this device at all."""
    query = torch.ones(1, 1, 8, 64, device=device, dtype=dtype)
    try:
        with warnings.catch_warnings(), sdpa_kernel(TORCH_KERNELS[name]):
            warnings.simplefilter("ignore")  # the reasons of every kernel, one by one
            torch.nn.functional.scaled_dot_product_attention(query, query, query)
    except RuntimeError:
        return False
    return True
