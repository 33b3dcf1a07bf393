"""What of a model's architecture decides how much its runs compute and keep, found without loading a weight.

The denoiser and the autoencoder are built on torch's meta device from their config.json, where parameters have a shape
and take no memory.
"""

import math
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.backbones.parts import INDEX, folder_index
from icm_pipeline.backbones.registry import family_of, family_of_class
from icm_pipeline.backbones.sites import find_sites
from icm_pipeline.config.models import ModelConfig, OutlineConfig
from icm_pipeline.zoo.paths import local_folder


def outline_of(model: ModelConfig) -> OutlineConfig | None:
    """Return a model's outline, None if nothing on this disk says it.

    It comes from the config.json files of a local folder, of an embedded model or of the hub's cache; for a hub id that
    is not there from the model's own YAML file, unless `sites` asks for other layers than those counted there.
    """
    folder = folder_of(model.path, model.revision)
    if folder is not None:
        return read_outline(folder, model.sites)
    return None if model.sites else model.outline


def folder_of(path: str, revision: str | None = None) -> Path | None:
    """Return where a model lies on this disk, None for a hub id that is not in the hub's cache."""
    return local_folder(path) or _cached_folder(path, revision)


def read_outline(folder: Path, sites: Mapping[str, str] | None = None) -> OutlineConfig:
    """Return the outline of the diffusers pipeline in a folder; sites: patterns by kind, None for the family's own.

    Raises BackboneError for a folder without a known pipeline, or a layer that does not say how wide it is.
    """
    pipe = hollow_pipeline(folder)
    family = family_of(type(pipe).__name__)
    denoiser: Any = getattr(pipe, family.denoiser)
    widths: dict[str, Counter[int]] = {}
    for site in find_sites(denoiser, sites or family.sites):
        widths.setdefault(site.kind, Counter())[_width(denoiser.get_submodule(site.module), site.layer)] += 1
    size, config = family.default_size(pipe), denoiser.config
    assert family.latent_shape is not None
    channels, _, width = family.latent_shape(pipe, size, size)
    inputs = config.get("in_channels")
    outputs = config.get("out_channels") or (2 * inputs if config.get("learn_sigma") else inputs)
    return OutlineConfig(
        widths={kind: [[width, count] for width, count in sorted(counts.items())] for kind, counts in widths.items()},
        size=size,
        channels=max(channels, channels * outputs // inputs) if inputs and outputs else channels,
        factor=getattr(pipe, "vae_scale_factor", size // width),
        rows=1 + hasattr(type(pipe), "do_perturbed_attention_guidance"),
        guided_above=_guided_above(pipe, config),
    )


def _cached_folder(path: str, revision: str | None) -> Path | None:
    """Return where the hub's cache keeps the model, None if what is read of it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(path, INDEX, revision=revision)
    except HFValidationError:  # no hub id
        return None
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    parts = ("unet" if (folder / "unet").is_dir() else "transformer", "vae")
    return folder if all((folder / part / "config.json").is_file() for part in parts) else None


def hollow_pipeline(folder: Path) -> Any:
    """Return a folder's pipeline without weights, text encoders and tokenizers; raises BackboneError."""
    import diffusers

    index = folder_index(folder, str(folder))
    family_of(class_name := str(index.get("_class_name")))
    parts: dict[str, Any] = {name: None for name, entry in index.items() if isinstance(entry, list)}
    if "safety_checker" in index:
        parts["requires_safety_checker"] = False
    for name in parts:
        if name in ("unet", "transformer", "vae", "scheduler") and index[name][1] is not None:
            parts[name] = _hollow_part(folder, name, getattr(diffusers, index[name][1]))
    return getattr(diffusers, class_name)(**parts)


def hollow_denoiser(folder: Path) -> Any:
    """Return a folder's pipeline with its denoiser and nothing else, without weights; raises BackboneError.

    It is of any class that can be attached to: for `attach`, and never called.
    """
    index = folder_index(folder, str(folder))
    class_name = str(index.get("_class_name"))
    pipeline_class = _class_named(class_name, "diffusers") or _imported_pipeline(class_name)
    if pipeline_class is None:
        raise BackboneError(f"{folder} holds a {class_name}, which neither diffusers nor an imported module defines.")
    name = family_of_class(pipeline_class).denoiser
    library, part_name = index.get(name) or (None, None)
    part_class = _class_named(str(part_name), str(library))
    if part_class is None:
        raise BackboneError(
            f"The {name} of the pipeline in {folder} is {part_name} of {library}, which is not imported."
        )
    pipe = object.__new__(pipeline_class)
    setattr(pipe, name, _hollow_part(folder, name, part_class))
    return pipe


def _class_named(name: str, library: str) -> Any:
    """Return a class of a module that is imported, None if there is none."""
    import diffusers  # noqa: F401

    return getattr(sys.modules.get(library), name, None)


def _imported_pipeline(name: str) -> Any:
    """Return the class of a user's own that derives from diffusers' pipelines, None if none of the name is imported."""
    import diffusers

    found = [diffusers.DiffusionPipeline]
    for each in found:  # grows
        found += each.__subclasses__()
    return next((each for each in found if each.__name__ == name), None)


def _hollow_part(folder: Path, name: str, part_class: Any) -> Any:
    """Return a part built from its config.json on the meta device, a scheduler on the CPU; raises BackboneError."""
    import torch

    try:
        config = part_class.load_config(folder / name)
    except (OSError, ValueError) as error:
        raise BackboneError(f"The pipeline in {folder} is not complete: {error}") from error
    with torch.device("cpu" if name == "scheduler" else "meta"):
        return part_class.from_config(config)


def _width(module: nn.Module, layer: str) -> int:
    """Return the width of a layer's tokens: what it adds to a block's tokens is as wide as what it first reads."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear) and name != "gate":  # which chooses experts, by the tokens and more
            return part.out_features if part is module else part.in_features
        if isinstance(part, nn.Conv2d):
            return part.in_channels
    raise BackboneError(f"{layer} has no linear layer, so that its width is known only when it runs.")


def _guided_above(pipe: Any, config: Mapping[str, Any]) -> float | None:
    """Return the guidance scale above which the pipeline adds unconditional rows, as the pipeline itself says."""
    if not hasattr(type(pipe), "do_classifier_free_guidance"):
        return None if "guidance_embeds" in config else 1.0
    for threshold, scale in ((0.0, 0.5), (1.0, math.inf)):
        pipe._guidance_scale = scale
        if pipe.do_classifier_free_guidance:
            return threshold
    return None
