"""Steering as a plain LoRA file: a constant shift is the bias of adapters that are zero otherwise.

y = W x + c + weight (B A x + s), with A [1, in] and B [out, 1] zero and PEFT's `lora_B.bias` s: the same as adding
weight * s to the layer's bias, which is what `fold` does. diffusers' `load_lora_weights` reads the file and PEFT runs
it. Without metadata of PEFT's own the scale is 1, and every layer needs its `lora_B.bias`.

A single block of FLUX's ends in one map W of its attention and its feed-forward, [attention, feed-forward] -> d: a
shift s of the attention's tokens is the bias W[:, :d] s behind it. It moves text tokens as well.

References:
    LoRA: Low-Rank Adaptation of Large Language Models, 2021, https://arxiv.org/abs/2106.09685
    ComfyUI, comfy/lora.py, https://github.com/comfyanonymous/ComfyUI, which reads a bias as `<key>.diff_b`
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone, Site
from icm_pipeline.backbones.modules import path_to, uncompiled
from icm_pipeline.backbones.outline import folder_of, hollow_denoiser
from icm_pipeline.backbones.registry import attach
from icm_pipeline.methods.chosen import warn_of_another_model
from icm_pipeline.methods.folding import (
    FoldingError,
    LastMap,
    check_finite,
    check_width,
    constant_shifts,
    last_map,
    moves_text,
    without_lora,
)
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors
from icm_pipeline.store.files import written_whole
from icm_pipeline.zoo.weight_files import read_tensor

METADATA = "icm_pipeline_lora"
SINGLE_BLOCK = r"single_transformer_blocks\.\d+\.attn"
# What ComfyUI calls a layer: kohya's names of UNets, and diffusers' own of FLUX.
COMFYUI_UNETS = ("stable_diffusion", "sdxl", "stable_diffusion_pag", "sdxl_pag", "latent_consistency")
COMFYUI_FLUX = ("flux", "flux_kontext")
FLAVOURS = ("diffusers", "comfyui")
GIVE = "give pipe=, or to `icm export` --model FOLDER"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file that was written."""

    path: Path
    flavour: str
    modules: tuple[str, ...]
    """The linear maps whose outputs it shifts, by their names in the denoiser."""
    moving_text: tuple[str, ...]
    """Those of them whose outputs are text tokens too, which `steer` would leave alone."""


class Shifted(NamedTuple):
    """A linear map and what its output is shifted by."""

    name: str
    linear: nn.Linear
    shift: Tensor
    moves_text: bool


def export_lora(
    vectors: SteeringVectors, option: str, strength: Strength, path: str | Path, flavour: str = "diffusers",
    pipe: Any = None,
) -> LoraFile:  # fmt: skip
    """Write the shift towards an option as a LoRA file; see `SteeringVectors.export_lora`.

    flavour: `diffusers`, tested with diffusers' loaders, or `comfyui`, which was never run in ComfyUI (docs/lora.md).
    """
    if flavour not in FLAVOURS:
        raise ValueError(f"flavour={flavour!r} is not known; choose from {', '.join(FLAVOURS)}.")
    _check_target(Path(path))
    shifts = constant_shifts(vectors, vectors.option_index(option), strength)
    folder = _folder_of(vectors.made_with) if pipe is None else None
    backbone = attach(hollow_denoiser(folder) if folder else pipe).with_layers(vectors.layers)
    if pipe is not None:
        warn_of_another_model(vectors, getattr(backbone.pipe, "name_or_path", None))
    _check_loader(backbone, flavour)
    maps = [_shifted(backbone, backbone.site(layer), shift, folder) for layer, shift in shifts.items()]
    tensors = dict[str, Tensor]()
    for each in maps:
        check_finite(each.name, each.shift)
        tensors |= _of_diffusers(backbone, each) if flavour == "diffusers" else _of_comfyui(backbone, each)
    moving_text = tuple(each.name for each in maps if each.moves_text)
    about = {
        "attribute": vectors.attribute, "option": option, "model": vectors.model, "alpha": strength.alpha,
        "alpha_unit": strength.alpha_unit, "layers": vectors.layers, "moving_text": moving_text,
    }  # fmt: skip
    try:
        with written_whole(Path(path)) as partial:
            save_file(tensors, partial, metadata={"format": "pt", METADATA: json.dumps(about)})
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}.") from error
    if moving_text:
        log.warning("%s moves text tokens too, which steer() leaves alone, in %s.", path, ", ".join(moving_text))
    return LoraFile(Path(path), flavour, tuple(each.name for each in maps), moving_text)


def _check_target(path: Path) -> None:
    """Raise ValueError for a name that no loader takes or no file can have, and for a file that is no LoRA of ours."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file in it, as {path / 'woman.safetensors'}.")
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} does not end in .safetensors, by which loaders know the file: give {path}.safetensors."
        )
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
    if path.exists() and not _is_ours(path):
        raise ValueError(f"{path} is there already and is no LoRA file of ours, so it is kept: give another name.")


def _is_ours(path: Path) -> bool:
    """Say whether a file's metadata tells that it was written here."""
    try:
        with safe_open(path, framework="pt") as file:
            return METADATA in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _folder_of(made_with: Mapping[str, Any]) -> Path:
    """Return where the model lies that vectors were made with; raises ValueError where that is not known."""
    path = made_with.get("path")
    if path is None:
        raise ValueError(f"These vectors do not say which model they were made with: {GIVE}.")
    folder = folder_of(path, made_with.get("revision"))
    if folder is None or not folder.is_dir():
        raise ValueError(f"The model that these vectors were made with, {path}, is not on this disk: {GIVE}.")
    return folder


def _check_loader(backbone: Backbone, flavour: str) -> None:
    """Raise FoldingError for a model whose LoRA files nothing would read."""
    family, pipeline = backbone.family, type(backbone.pipe)
    if flavour == "diffusers" and not hasattr(pipeline, "load_lora_weights"):
        raise FoldingError(
            f"diffusers' {pipeline.__name__} has no load_lora_weights(), so that it reads no LoRA file. Use fold() and "
            "pipe.save_pretrained(), or steer()."
        )
    if flavour == "comfyui" and family.name not in (*COMFYUI_UNETS, *COMFYUI_FLUX):
        raise FoldingError(
            f"What ComfyUI calls the layers of {family.name} is not known here; it is for "
            f"{', '.join((*COMFYUI_UNETS, *COMFYUI_FLUX))}."
        )


def _shifted(backbone: Backbone, site: Site, shift: Tensor, folder: Path | None) -> Shifted:
    """Return the linear map behind a site and its shift, in float64; folder: of a pipeline without weights."""
    way = path_to(uncompiled(backbone.denoiser), site.module)
    after: Any = getattr(way[-2], "proj_out", None)
    if re.fullmatch(SINGLE_BLOCK, site.layer) and after is not None and getattr(way[-1], "to_out", None) is None:
        name = f"{site.module.rpartition('.')[0]}.proj_out"
        projection = without_lora(site.layer, after)
        if hasattr(after, "lora_A") and not (after.merged or after.disable_adapters):
            raise FoldingError(
                f"A LoRA is live on {name}, through whose weight the shift goes, so that the file would not be exact "
                "with it: call pipe.disable_lora() or pipe.fuse_lora() first."
            )
        check_width(site.layer, shift, projection)
        weight = _weight(backbone, LastMap(name, projection, 1.0), folder)
        return Shifted(name, projection, weight[:, : len(shift)] @ shift.to(weight.device), True)
    found = last_map(backbone, site)
    check_width(site.layer, shift, found.linear)
    return Shifted(found.name, found.linear, found.factor * shift, moves_text(backbone, site))


def _weight(backbone: Backbone, of: LastMap, folder: Path | None) -> Tensor:
    """Return a linear map's weight in float64; raises FoldingError where it is quantised or not loaded."""
    weight = of.linear.weight.detach()
    if weight.is_meta and folder is not None:
        weight = read_tensor(folder / backbone.family.denoiser, f"{of.name}.weight")
    shape = (of.linear.out_features, of.linear.in_features)
    if weight.is_meta or not weight.is_floating_point() or weight.shape != shape:
        raise FoldingError(
            f"The shift behind {of.name} takes its weight, which is not loaded (offload) or quantised: give a pipeline "
            "that was loaded whole as pipe=."
        )
    return weight.double()


def _of_diffusers(backbone: Backbone, of: Shifted) -> dict[str, Tensor]:
    start = f"{backbone.family.denoiser}.{of.name}"
    return {
        f"{start}.lora_A.weight": torch.zeros(1, of.linear.in_features),
        f"{start}.lora_B.weight": torch.zeros(of.linear.out_features, 1),
        f"{start}.lora_B.bias": of.shift.float().cpu().contiguous(),
    }


def _of_comfyui(backbone: Backbone, of: Shifted) -> dict[str, Tensor]:
    if of.linear.bias is None:
        raise FoldingError(f"{of.name} has no bias, and ComfyUI adds to the biases that there are. Use fold().")
    is_flux = backbone.family.name in COMFYUI_FLUX
    name = f"transformer.{of.name}" if is_flux else f"lora_unet_{of.name.replace('.', '_')}"
    return {f"{name}.diff_b": of.shift.float().cpu().contiguous()}
