"""Stable Diffusion's family: a UNet2DConditionModel with attn1 (self), attn2 (cross) and ff in every transformer block.

All three give tokens [b, s, d] before the residual is added. With guidance the denoiser's batch is
[unconditional..., conditional...]; without, it is conditional only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
import transformers
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, BackboneError, Site, find_sites
from icm_pipeline.backbones.paths import local_folder
from icm_pipeline.backbones.schedulers import use_scheduler

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load(
    name: str,
    path: str,
    dtype: str,
    device: str,
    num_steps: int,
    guidance_scale: float,
    site_patterns: dict[str, str],
    scheduler: str | None,
) -> Backbone:
    """Load a Stable Diffusion pipeline from a local folder or hub id, safetensors only; raises BackboneError."""
    with _quiet_loading():
        pipe = _load_pipeline(path, DTYPES[dtype]).to(device)
    use_scheduler(pipe, scheduler)
    pipe.set_progress_bar_config(disable=True)
    shape = (pipe.unet.config.in_channels, pipe.unet.config.sample_size, pipe.unet.config.sample_size)

    def draw_latents(seeds: list[int]) -> Tensor:
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn)

    def decode(latents: Tensor) -> list[Any]:
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
        images: list[Any] = pipe.image_processor.postprocess(decoded.detach(), output_type="pil")
        return images

    return Backbone(
        name=name,
        pipe=pipe,
        denoiser=pipe.unet,
        sites=find_sites(pipe.unet, site_patterns),
        read=read_tokens,
        write=write_tokens,
        conditional_rows=conditional_rows,
        guidance_scale=guidance_scale,
        num_steps=num_steps,
        device=device,
        draw_latents=draw_latents,
        decode=decode,
    )


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keep the libraries' loading bars out of the log; they are put back on afterwards."""
    modules = (diffusers.utils.logging, transformers.utils.logging)
    shown = [module.is_progress_bar_enabled() for module in modules]
    for module in modules:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module, was_shown in zip(modules, shown, strict=True):
            if was_shown:
                module.enable_progress_bar()


def _load_pipeline(path: str, dtype: torch.dtype) -> StableDiffusionPipeline:
    folder = local_folder(path)
    options = {"dtype": dtype, "use_safetensors": True, "safety_checker": None, "requires_safety_checker": False}
    if folder is None:
        try:
            return StableDiffusionPipeline.from_pretrained(path, **options)
        except OSError as error:
            raise BackboneError(
                f"{path!r} could not be fetched from the hub ({str(error).splitlines()[0]}). Without a network, "
                "save the pipeline to a folder elsewhere and set model.path=/that/folder."
            ) from error
    if not (folder / "model_index.json").is_file():
        raise BackboneError(f"model.path={path} is not a diffusers pipeline folder: it has no model_index.json.")
    try:
        return StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise BackboneError(f"The pipeline in {folder} could not be loaded: {error}") from error


def read_tokens(output: Any, site: Site) -> Tensor:
    """Return the module's output, which is its image tokens [b, s, d]."""
    if not isinstance(output, Tensor) or output.dim() != 3:
        raise BackboneError(f"{site.layer} gave {type(output).__name__}, not a tensor [b, s, d].")
    return output


def write_tokens(output: Any, tokens: Tensor, site: Site) -> Tensor:
    """Return the new tokens, which are the module's whole output."""
    return tokens


def conditional_rows(num_rows: int, num_images: int, guided: bool) -> slice:
    """Return the conditional rows of the denoiser's batch; raises BackboneError for a layout it cannot explain."""
    expected = 2 * num_images if guided else num_images
    if num_rows != expected:
        raise BackboneError(
            f"The denoiser ran on {num_rows} rows for {num_images} image(s) with guidance {'on' if guided else 'off'}; "
            f"{expected} were expected, so the conditional half is not known."
        )
    return slice(num_images, None) if guided else slice(0, None)
