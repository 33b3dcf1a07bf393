"""The folder of a diffusers pipeline: whether its parts are there and whole, told from their headers."""

import json
import re
from pathlib import Path
from typing import Any

from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.config.models import ModelConfig
from icm_pipeline.text import count_text
from icm_pipeline.zoo.paths import local_folder
from icm_pipeline.zoo.weight_files import problem_of, read_shapes

INDEX = "model_index.json"
TEXTS = (".json", ".txt", ".model")  # configurations and tokenizers
ADAPTED = re.compile(r"\.base_layer\.|\.lora_[AB]\.")


def check_model(model: ModelConfig) -> None:
    """Raise BackboneError for a model on this disk whose folder is not complete; nothing is loaded."""
    folder = local_folder(model.path)
    if folder is not None:
        index = folder_index(folder, model.path)
        check_parts(folder, index, variant_in(folder, model.variant))


def variant_in(folder: Path, variant: str | None) -> str | None:
    """Return the variant to load: None where a folder has plain weights alone, as a pipeline that was saved again."""
    return variant if any("." in file.stem for file in folder.glob("*/*.safetensors")) else None


def folder_index(folder: Path, path: str) -> dict[str, Any]:
    """Return the index of a pipeline's folder; raises BackboneError, which names the path as the user gave it."""
    if not folder.is_dir():
        raise BackboneError(f"model.path={path} is not a folder. Give one that holds a diffusers pipeline ({INDEX}).")
    if not (folder / INDEX).is_file():
        raise BackboneError(f"model.path={path} is not a diffusers pipeline folder: it has no {INDEX}.")
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
    except ValueError as error:
        raise BackboneError(f"{folder / INDEX} is not JSON: {error}") from error
    if not isinstance(index, dict):
        raise BackboneError(f"{folder / INDEX} holds a {type(index).__name__}, and no pipeline's parts by name.")
    return index


def check_parts(folder: Path, index: dict[str, Any], variant: str | None) -> None:
    """Raise BackboneError naming what the index promises and the folder lacks, has only as pickles or not whole."""
    parts = [name for name, entry in index.items() if isinstance(entry, list) and isinstance(entry[0], str)]
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
        if variant is not None and safe and not any(_of_variant(file, variant) for file in safe):
            raise BackboneError(
                f"{folder / name} has no weights of model.variant={variant}: {', '.join(safe)}. To load those, set "
                "model.variant=null."
            )
        for file in sorted((folder / name).iterdir()):
            if file.suffix in TEXTS or (file.suffix == ".safetensors" and _of_variant(file.name, variant)):
                _check_file(file)


def _of_variant(name: str, variant: str | None) -> bool:
    """Say whether a file of weights is the one that is loaded: model.safetensors, or model.fp16.safetensors of fp16.

    Of several shards it is called model-00001-of-00002.safetensors and model.fp16-00001-of-00002.safetensors.
    """
    if variant is None:
        return "." not in name.removesuffix(".safetensors")
    return re.search(rf"\.{re.escape(variant)}[.-]", name) is not None


def _check_file(file: Path) -> None:
    if problem := problem_of(file):
        raise BackboneError(f"{file} {problem}")
    if file.suffix != ".safetensors":
        return
    adapted = [name for name in read_shapes(file) if ADAPTED.search(name)]
    if adapted:
        raise BackboneError(
            f"{file} was saved while a LoRA was loaded: {count_text(len(adapted), 'tensor')} are of the adapter or "
            f"below it, such as {adapted[0]}. Load the original with the LoRA, call pipe.fuse_lora() to keep it, then "
            "pipe.unload_lora_weights() and pipe.save_pretrained(folder)."
        )
