"""Load diffusers pipelines from local folders and hub ids, safetensors only, and place them on a device."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.config import choices
from icm_pipeline.config.schema import ComputeConfig, ModelConfig
from icm_pipeline.zoo.paths import local_folder

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in choices.DTYPES}
INDEX = "model_index.json"


def load_pipeline(model: ModelConfig, compute: ComputeConfig, denoisers: Mapping[str, str]) -> Any:
    """Return a model's pipeline on its device; raises BackboneError.

    denoisers: the known classes of pipelines, each with the name of its denoiser.
    """
    path, variant = model.path, model.variant
    _check_dtype(compute)
    folder = local_folder(path)
    if folder is None:
        with _hub_errors(path):
            index = diffusers.DiffusionPipeline.load_config(path, revision=model.revision)
    else:
        index = folder_index(folder, path)
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
            _check_parts(folder, index, variant)
            try:
                pipe = pipeline_class.from_pretrained(folder, local_files_only=True, **options)
            except (OSError, ValueError, SafetensorError) as error:
                raise BackboneError(f"The pipeline in {folder} could not be loaded: {error}") from error
    denoiser = denoisers[class_name]
    _check_loaded_dtype(getattr(pipe, denoiser), compute.dtype)
    pipe.set_progress_bar_config(disable=True)
    return place(pipe, denoiser, compute)


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
    if compute.vae_slicing:
        pipe.vae.enable_slicing()
    if compute.vae_tiling:
        pipe.vae.enable_tiling()
    if compute.compile:
        setattr(pipe, denoiser, torch.compile(getattr(pipe, denoiser)))
    return pipe


def _check_dtype(compute: ComputeConfig) -> None:
    """Raise BackboneError if the device cannot compute in the dtype."""
    try:
        x = torch.ones(1, 8, 8, 8, device=compute.device, dtype=DTYPES[compute.dtype])
        convolved = torch.nn.functional.conv2d(x, x.new_ones(8, 8, 3, 3), padding=1)
        torch.nn.functional.layer_norm(convolved @ x, (8,))
    except AssertionError as error:  # what a torch without CUDA raises
        raise BackboneError(
            f"compute.device={compute.device} cannot be used here ({error}). Set compute.device=cpu."
        ) from error
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise BackboneError(
            f"compute.dtype={compute.dtype} does not work on {compute.device} ({reason}). Set compute.dtype=float32."
        ) from error


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
        yield
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"{path!r} could not be fetched from the hub ({str(error).splitlines()[0]}). Without a network, save the "
            "pipeline to a folder elsewhere and set model.path=/that/folder."
        ) from error


def folder_index(folder: Path, path: str) -> dict[str, Any]:
    """Return the index of a pipeline's folder; raises BackboneError, which names the path as the user gave it."""
    if not folder.is_dir():
        raise BackboneError(f"model.path={path} is not a folder. Give one that holds a diffusers pipeline ({INDEX}).")
    if not (folder / INDEX).is_file():
        raise BackboneError(f"model.path={path} is not a diffusers pipeline folder: it has no {INDEX}.")
    try:
        return json.loads((folder / INDEX).read_text("utf-8"))
    except ValueError as error:
        raise BackboneError(f"{folder / INDEX} is not JSON: {error}") from error


def _check_parts(folder: Path, index: dict[str, Any], variant: str | None) -> None:
    """Raise BackboneError naming the parts that the index promises and the folder lacks or has only as pickles."""
    parts = [name for name, entry in index.items() if isinstance(entry, list) and entry[0] is not None]
    promised = [name for name in parts if name not in ("safety_checker", "feature_extractor")]
    if missing := [name for name in promised if not (folder / name).is_dir()]:
        raise BackboneError(f"The pipeline in {folder} is not complete: {', '.join(missing)} missing. Save it again.")
    for name in promised:
        files = [file.name for file in (folder / name).iterdir()]
        pickled = [file for file in files if file.endswith((".bin", ".ckpt", ".pt"))]
        safe = [file for file in files if file.endswith(".safetensors")]
        if pickled and not safe:
            raise BackboneError(
                f"{folder / name} has its weights only as a pickle ({', '.join(pickled)}), which may run code when it "
                "is loaded. Load it where you trust it and save it with pipe.save_pretrained(folder)."
            )
        # A file of a variant is called model.fp16.safetensors or model.fp16-00001-of-00002.safetensors.
        if variant is not None and safe and not any(re.search(rf"\.{re.escape(variant)}[.-]", file) for file in safe):
            raise BackboneError(
                f"{folder / name} has no weights of model.variant={variant}: {', '.join(safe)}. To load those, set "
                "model.variant=null."
            )


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
