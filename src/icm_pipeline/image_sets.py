"""Sets of images on disk, made shard by shard: PNG files, their table, and pooled activations if recorded."""

import csv
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from icm_pipeline.artifacts import Artifact, write_json, written_whole
from icm_pipeline.background import Background
from icm_pipeline.pictures import read_picture
from icm_pipeline.progress import working
from icm_pipeline.prompts import Job
from icm_pipeline.recording import Recording
from icm_pipeline.sampling import Sample
from icm_pipeline.shards import WHOLE, Shard, Share, num_items, plan_shards

log = logging.getLogger(__name__)

TABLE = "images.csv"
IMAGES = "images"
SAMPLES = "samples.png"  # the first images side by side, to look at
COLUMNS = ("id", "prompt", "prompt_index", "seed", "option", "path")
ACTIVATION_FOLDER = "activations"
RECORDING = "recording.json"
PICTURE_THREADS = 4  # pack and write pictures while the next batch is made
MOST_PICTURES_WAITING = 32


@dataclass(frozen=True)
class Batch:
    """What one batch produced; `samples` is empty where only activations are wanted, `recording` None without them."""

    size: int
    samples: list[Sample]
    recording: Recording | None = None


@dataclass(frozen=True)
class ImageRow:
    """One line of an image table; `option` is what the image was steered to, empty if it was not.

    Of images from elsewhere the prompt may be empty and the seed None; problem: why the picture cannot be read.
    """

    image_id: str
    prompt: str
    prompt_index: int
    seed: int | None
    option: str
    path: Path
    problem: str = ""


def make_image_set(
    folder: Path,
    jobs: list[Job],
    make_batch: Callable[[list[Job]], Batch],
    batch_size: int,
    shard_size: int,
    title: str,
    options: Sequence[str] = (),
    share: Share = WHOLE,
    grow: bool = False,
) -> bool:
    """Make every job's image (and activations) in `folder`, going on from whole shards that are already there.

    options: for each job, what it is steered to; empty for unsteered sets. Of a share only the shards are made. Return
    whether the set is complete, with its table. grow: take more at once than batch_size while it fits into memory.
    """
    images, ids = folder / IMAGES, [job.image_id for job in jobs]
    shards = plan_shards(folder, ids, share, batch_size, shard_size)
    fitting = _FittingBatches(make_batch, batch_size, grow)
    with (
        Background(PICTURE_THREADS, most=MOST_PICTURES_WAITING) as pictures,
        Background(1, most=1) as whole_shards,
        working(title, num_items(shards), "image", done=num_items(shards, made=True)) as work,
    ):
        finished: list[Shard | Future[Shard]] = []
        for shard in shards:
            if shard.table is not None:
                finished.append(shard)
                continue
            saved: list[Future[Path]] = []
            recorded: list[Recording] = []
            for made in fitting.make(jobs[shard.start : shard.stop]):
                for sample in made.samples:
                    images.mkdir(exist_ok=True)
                    saved.append(pictures.do(_save_png, sample.image, images / f"{sample.job.image_id}.png"))
                recorded += [made.recording] if made.recording else []
                work.advance(made.size)
            finished.append(whole_shards.do(_keep, shard, ids, saved, recorded))
    shards = [shard.result() if isinstance(shard, Future) else shard for shard in finished]
    if share.count > 1:
        return False
    recording = shards[-1].table["recording"] if shards[-1].table else None
    if recording:
        _join_activations(folder, [shard.record for shard in shards], recording)
    if images.exists():
        _write_table(folder, jobs, list(options) or [""] * len(jobs))
    return True


def _keep(shard: Shard, ids: list[str], saved: list[Future[Path]], recorded: list[Recording]) -> Shard:
    """Write what a shard still lacks, its table last, when its pictures are there; return it whole."""
    files = [picture.result() for picture in saved]
    recording = _save_shard(recorded, shard.record)
    files += [shard.record] if recording else []
    return shard.keep(ids, files, {"recording": recording})


class _FittingBatches:
    """Makes batches of a size that is halved, for good, whenever one does not fit into memory.

    grow: until then it is doubled after every batch that was full.
    """

    def __init__(self, make_batch: Callable[[list[Job]], Batch], size: int, grow: bool) -> None:
        self._make_batch = make_batch
        self._size = size
        self._grow = grow

    def make(self, jobs: list[Job]) -> Iterator[Batch]:
        """Make all jobs; raises MemoryError if a single one does not fit."""
        start = 0
        while start < len(jobs):
            batch = jobs[start : start + self._size]
            try:
                made = self._make_batch(batch)
            except MemoryError as error:
                if len(batch) == 1:
                    raise
                self._size, self._grow = len(batch) // 2, False
                log.warning("%s Going on with %d at once.", error, self._size)
                continue
            yield made
            start += len(batch)
            if self._grow and len(batch) == self._size:
                self._size *= 2


def _save_png(image: Any, path: Path) -> Path:
    with written_whole(path) as partial:
        image.save(partial, format="PNG")
    return path


def _write_table(folder: Path, jobs: list[Job], options: list[str]) -> None:
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for job, option in zip(jobs, options, strict=True):
            path = f"{IMAGES}/{job.image_id}.png"
            writer.writerow([job.image_id, job.prompt, job.prompt_index, job.seed, option, path])


def _save_shard(recorded: list[Recording], path: Path) -> dict[str, Any] | None:
    """Write the activations of a shard's batches; return what they are, None if nothing was recorded."""
    if not recorded:
        return None
    first = recorded[0]
    tensors = {layer: torch.cat([part.activations[layer] for part in recorded]) for layer in first.activations}
    with written_whole(path) as partial:
        save_file(tensors, partial)
    return {"steps": first.steps, "noise_levels": first.noise_levels, "kinds": first.kinds}


def _join_activations(folder: Path, records: list[Path], recording: dict[str, Any]) -> None:
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


def read_table(artifact: Artifact) -> list[ImageRow]:
    """Return the rows of an artifact's table of images, in its order."""
    with artifact.path(TABLE).open(newline="", encoding="utf-8") as file:
        return [
            ImageRow(
                row["id"], row["prompt"], int(row["prompt_index"]), int(row["seed"]), row["option"],
                artifact.path(row["path"]),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


class Pictures(Sequence[Image.Image]):
    """The pictures of a table, each opened when it is asked for; raises OSError naming a file that cannot be read."""

    def __init__(self, rows: Sequence[ImageRow]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Pictures(self._rows[index])
        return read_picture(self._rows[index].path)


@dataclass(frozen=True)
class RecordingTable:
    """What an artifact holds of activations: per layer its kind and file; the recorded steps and their noise levels."""

    kinds: dict[str, str]
    files: dict[str, str]
    steps: list[int]
    noise_levels: list[float]


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
