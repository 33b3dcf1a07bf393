"""Pooled activations on disk: shard by shard while they are made, then a file per layer."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from icm_pipeline.hooks.recording import RecordedAt, Recording
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.files import write_json, written_whole

ACTIVATION_FOLDER = "activations"
RECORDING = "recording.json"


def save_shard(recorded: list[Recording], path: Path) -> dict[str, Any] | None:
    """Write the activations of a shard's batches; return what they are, None if nothing was recorded."""
    if not recorded:
        return None
    first = recorded[0]
    tensors = {layer: torch.cat([part.activations[layer] for part in recorded]) for layer in first.activations}
    with written_whole(path) as partial:
        save_file(tensors, partial)
    return {"steps": first.steps, "noise_levels": first.noise_levels, "kinds": first.kinds}


def join_activations(folder: Path, records: list[Path], recording: dict[str, Any]) -> None:
    """Turn shards with all layers into one file per layer, holding one layer in memory at a time.

    The table of what was recorded keeps the layers in the network's order; a safetensors file does not.
    """
    target = folder / ACTIVATION_FOLDER
    target.mkdir(exist_ok=True)
    layers = recording["kinds"]
    names = {layer: f"{ACTIVATION_FOLDER}/{number:04d}.safetensors" for number, layer in enumerate(layers)}
    for layer, name in names.items():
        parts = []
        for record in records:
            with safe_open(record, framework="pt") as file:
                parts.append(file.get_tensor(layer))
        save_file({"pooled": torch.cat(parts)}, folder / name)
    write_json(folder / RECORDING, {**recording, "files": names})


@dataclass(frozen=True)
class RecordingTable(RecordedAt):
    """What an artifact holds of activations."""

    files: dict[str, str]
    """{layer: the file's name}."""


def read_recording(artifact: Artifact) -> RecordingTable:
    """Return what was recorded; raises ArtifactError if nothing was."""
    return RecordingTable(**json.loads(artifact.path(RECORDING).read_text("utf-8")))


def read_activations(artifact: Artifact, file_name: str) -> NDArray[np.float32]:
    """Return one layer's pooled activations [n, T, d], in the order of the jobs: mapped, not copied into memory."""
    path = artifact.path(file_name)
    if hasattr(os, "posix_fadvise"):  # read ahead: what is asked for of each row lies far apart
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
    with safe_open(path, framework="pt") as tensors:
        pooled: NDArray[np.float32] = tensors.get_tensor("pooled").numpy()
    return pooled
