"""Pooled activations on disk: shard by shard while they are made, then a file per layer."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from icm_pipeline.hooks.recording import RecordedAt, Recording
from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.files import write_json, written_whole

ACTIVATION_FOLDER = "activations"
RECORDING = "recording.json"
VALUES = "pooled"  # a layer's numbers in its file, beside the scale and offset of those that are halved


def save_shard(recorded: list[Recording], path: Path) -> dict[str, Any] | None:
    """Write the activations of a shard's batches; return what they are, None if nothing was recorded."""
    if not recorded:
        return None
    first = recorded[0]
    tensors = {layer: torch.cat([part.activations[layer] for part in recorded]) for layer in first.activations}
    with written_whole(path) as partial:
        save_file(tensors, partial)
    return {"steps": first.steps, "noise_levels": first.noise_levels, "kinds": first.kinds}


def join_activations(folder: Path, records: list[Path], recording: dict[str, Any], halved: bool) -> None:
    """Turn shards with all layers into one file per layer, holding one layer in memory at a time.

    The table of what was recorded keeps the layers in the network's order; a safetensors file does not. Raises
    FloatingPointError for activations that half the bytes cannot hold.
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
        save_file(_encoded(torch.cat(parts), halved), folder / name)
    write_json(folder / RECORDING, {**recording, "files": names, "dtype": "float16" if halved else "float32"})


def _encoded(pooled: Tensor, halved: bool) -> dict[str, Tensor]:
    tensors = (Pooled.halved(pooled) if halved else Pooled(pooled)).tensors()
    return {VALUES: tensors.pop("values"), **tensors}


@dataclass(frozen=True)
class RecordingTable(RecordedAt):
    """What an artifact holds of activations."""

    files: dict[str, str]
    """{layer: the file's name}."""
    dtype: str = "float32"
    """What they are kept in, of STORED."""


def read_recording(artifact: Artifact) -> RecordingTable:
    """Return what was recorded; raises ArtifactError if nothing was."""
    return RecordingTable(**json.loads(artifact.path(RECORDING).read_text("utf-8")))


def read_activations(artifact: Artifact, file_name: str, pinned: bool = False) -> Pooled:
    """Return one layer's pooled activations, in the order of the jobs.

    They are mapped, not copied into memory; or, pinned, read into page-locked memory, from where a GPU takes them
    several times as fast.
    """
    path = artifact.path(file_name)
    if hasattr(os, "posix_fadvise"):  # read ahead: what is asked for of each row lies far apart
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
    with safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    values = found.pop(VALUES)
    return Pooled(_read_pinned(path, values) if pinned else values, **found)


def read_recorded(folder: Path) -> tuple[RecordedAt, dict[str, Tensor]]:
    """Return what a folder holds of activations, few as they are, as {layer: [n, T, d]} in float32.

    The folder need not be an artifact yet.
    """
    table = RecordingTable(**json.loads((folder / RECORDING).read_text("utf-8")))
    return table, {layer: load_file(folder / name)[VALUES] for layer, name in table.files.items()}


def _read_pinned(path: Path, mapped: Tensor) -> Tensor:
    """Return what a file maps in page-locked memory: read at once, where mapping would fault in page after page."""
    values = torch.empty(mapped.shape, dtype=mapped.dtype, pin_memory=True)
    whole = memoryview(values.view(torch.uint8).numpy().reshape(-1))  # type: ignore[arg-type]
    with path.open("rb", buffering=0) as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        file.seek(file.tell() + header[VALUES]["data_offsets"][0])
        done = 0
        while done < len(whole):
            count = file.readinto(whole[done:])
            if not count:
                raise OSError(f"{path} ended after {done} of {len(whole)} bytes of activations.")
            done += count
    return values
