"""Load diffusers pipelines from local folders and hub ids, safetensors only, and place them on a device."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.image_processor import VaeImageProcessor
from safetensors import SafetensorError

from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.backbones.parts import check_parts, folder_index, variant_in
from icm_pipeline.config import choices
from icm_pipeline.config.models import ComputeConfig, ModelConfig
from icm_pipeline.machine.hub import asked_once, hub_answers
from icm_pipeline.text import count_text
from icm_pipeline.zoo.paths import local_folder

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in choices.DTYPES}

log = logging.getLogger(__name__)


def load_pipeline(model: ModelConfig, compute: ComputeConfig, denoisers: Mapping[str, str]) -> Any:
    """Return a model's pipeline on its device; raises BackboneError.

    denoisers: the known classes of pipelines, each with the name of its denoiser.
    """
    path, variant = model.path, model.variant
    _check_dtype(compute.device, compute.dtype)
    folder = local_folder(path)
    if folder is None:
        with _hub_errors(path):
            index = diffusers.DiffusionPipeline.load_config(path, revision=model.revision)
    else:
        index = folder_index(folder, path)
        if (variant := variant_in(folder, model.variant)) != model.variant:
            log.info("%s has no weights of model.variant=%s: its own are loaded", folder, model.variant)
    class_name = str(index.get("_class_name"))
    if class_name not in denoisers:
        raise BackboneError(f"{path} holds a {class_name}, which is not known here. Known: {', '.join(denoisers)}.")
    options: dict[str, Any] = {"dtype": DTYPES[compute.dtype], "use_safetensors": True, "variant": variant}
    if "safety_checker" in index:  # judges pictures with a network of its own, and blackens some
        options |= {"safety_checker": None, "requires_safety_checker": False}
    pipeline_class = getattr(diffusers, class_name)
    with _quiet_loading(path.startswith(choices.EMBEDDED)):
        if folder is None:
            with _hub_errors(path):
                pipe = pipeline_class.from_pretrained(path, revision=model.revision, **options)
        else:
            pipe = _from_folder(pipeline_class, folder, index, options)
    _check_whole(pipe, path)
    denoiser = denoisers[class_name]
    _check_loaded_dtype(getattr(pipe, denoiser), compute.dtype)
    pipe.set_progress_bar_config(disable=True)
    if not hasattr(pipe, "image_processor"):  # Kandinsky 3
        pipe.image_processor = VaeImageProcessor()
    return place(pipe, denoiser, compute)


def open_folder(folder: Path, classes: Mapping[str, Any], device: str, dtype: str) -> Any:
    """Return the pipeline that a folder holds, known or not, on its device; raises BackboneError.

    classes: a user's own pipelines by name, beside those of diffusers.
    """
    _check_dtype(device, dtype)
    index = folder_index(folder, str(folder))
    class_name = str(index.get("_class_name"))
    pipeline_class = classes.get(class_name) or getattr(diffusers, class_name, None)
    if pipeline_class is None:
        raise BackboneError(f"{folder} holds a {class_name}, which diffusers does not have: give --module with it.")
    options: dict[str, Any] = {"dtype": DTYPES[dtype], "use_safetensors": True, "variant": None}
    if "safety_checker" in index:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    with _quiet_loading(False):
        pipe = _from_folder(pipeline_class, folder, index, options)
    _check_whole(pipe, str(folder))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def _from_folder(pipeline_class: Any, folder: Path, index: dict[str, Any], options: Mapping[str, Any]) -> Any:
    check_parts(folder, index, options["variant"])
    try:
        return pipeline_class.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise BackboneError(f"The pipeline in {folder} could not be loaded: {error}") from error


def place(pipe: Any, denoiser: str, compute: ComputeConfig) -> Any:
    """Move a pipeline to its device and switch on what saves memory or time; denoiser: its attribute's name."""
    if compute.offload == "none":
        pipe.to(compute.device)
    elif compute.device == "cpu":
        raise BackboneError(
            f"compute.offload={compute.offload} needs a GPU: set compute.device, or compute.offload=none."
        )
    elif compute.offload == "model":
        pipe.enable_model_cpu_offload(device=compute.device)
    else:
        pipe.enable_sequential_cpu_offload(device=compute.device)
    if (compute.vae_slicing or compute.vae_tiling) and not hasattr(pipe, "vae"):
        raise BackboneError(
            f"{type(pipe).__name__} has no autoencoder that could be sliced or tiled: set compute.vae_slicing=false "
            "and compute.vae_tiling=false."
        )
    if compute.vae_slicing:
        pipe.vae.enable_slicing()
    if compute.vae_tiling:
        pipe.vae.enable_tiling()
    if compute.compile:
        setattr(pipe, denoiser, torch.compile(getattr(pipe, denoiser)))
    return pipe


def _check_dtype(device: str, dtype: str) -> None:
    """Raise BackboneError if the device is not there or cannot compute in the dtype."""
    try:
        torch.ones(1, device=device)
    except (AssertionError, RuntimeError) as error:  # the first is what a torch without CUDA raises
        reason = str(error).splitlines()[0].removesuffix(".")
        raise BackboneError(
            f"compute.device={device} cannot be used here ({reason}). Set compute.device=cpu."
        ) from error
    try:
        x = torch.ones(1, 8, 8, 8, device=device, dtype=DTYPES[dtype])
        convolved = torch.nn.functional.conv2d(x, x.new_ones(8, 8, 3, 3), padding=1)
        torch.nn.functional.layer_norm(convolved @ x, (8,))
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise BackboneError(
            f"compute.dtype={dtype} does not work on {device} ({reason}). Set compute.dtype=float32."
        ) from error


def _check_whole(pipe: Any, path: str) -> None:
    """Raise BackboneError for a part that has weights which no file gave: diffusers leaves them empty in silence."""
    for part, module in pipe.components.items():
        if isinstance(module, torch.nn.Module):
            empty = [name for name, value in module.named_parameters() if value.is_meta]
            if empty:
                raise BackboneError(
                    f"The {part} in {path} is not complete: its files lack {count_text(len(empty), 'tensor')}, the "
                    f"first is {empty[0]}. Save or download it again."
                )


def _check_loaded_dtype(denoiser: torch.nn.Module, dtype: str) -> None:
    """Raise BackboneError if the denoiser's weights are not in the dtype; some models keep a few layers in float32."""
    found = {parameter.dtype for parameter in denoiser.parameters()}
    if DTYPES[dtype] not in found:
        names = ", ".join(sorted(str(each) for each in found))
        raise BackboneError(
            f"compute.dtype={dtype} was asked for, but diffusers {diffusers.__version__} loaded {names}. "
            "Install diffusers 0.40 or newer."
        )


@contextmanager
def _hub_errors(path: str) -> Iterator[None]:
    try:
        with asked_once(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument")  # which diffusers gives
            yield
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if hub_answers() else "which cannot be reached from here"
        raise BackboneError(
            f"{path!r} could not be fetched from the hub ({reason}). Without a network, save the "
            "pipeline to a folder elsewhere and set model.path=/that/folder."
        ) from error


def _no_text_encoder_warning(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Expected types for text_encoder")


@contextmanager
def _quiet_loading(embedded: bool) -> Iterator[None]:
    """Keep out of the log the libraries' loading bars, and that an embedded model reads text with a smaller encoder."""
    modules = (diffusers.utils.logging, transformers.utils.logging)
    shown = [module.is_progress_bar_enabled() for module in modules]
    for module in modules:
        module.disable_progress_bar()
    pipelines = logging.getLogger("diffusers.pipelines.pipeline_utils")
    if embedded:
        pipelines.addFilter(_no_text_encoder_warning)
    try:
        yield
    finally:
        pipelines.removeFilter(_no_text_encoder_warning)
        for module, was_shown in zip(modules, shown, strict=True):
            if was_shown:
                module.enable_progress_bar()
