"""Portraits on disk: rendered once in shards, every picture decided by (seed, split, index) alone."""

import hashlib
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from icm_pipeline.machine.threads import num_cores
from icm_pipeline.pretrain import portraits, world
from icm_pipeline.pretrain.world import PERSON_FIELDS, Person, draw_person
from icm_pipeline.store.files import written_whole

log = logging.getLogger(__name__)

SHARD_SIZE = 2000
SPLITS = {"train": 0, "held_out": 1}
CAPTION_STREAM = 7  # keeps a caption's random stream apart from its portrait's


@dataclass(frozen=True)
class Portraits:
    """Pictures [n, 64, 64, 3] uint8 and the person in each."""

    pixels: np.ndarray
    people: list[Person]

    def __len__(self) -> int:
        return len(self.people)

    @cached_property
    def digest(self) -> str:
        """Return a short hash of the pictures."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()[:16]

    def labels(self, attribute: str, options: tuple[str, ...]) -> np.ndarray:
        """Return the option index of every portrait [n]."""
        return np.array([options.index(person.option(attribute)) for person in self.people])


def person_at(seed: int, split: str, index: int) -> Person:
    return draw_person(np.random.default_rng([seed, SPLITS[split], index]))


def caption_rng(seed: int, index: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, CAPTION_STREAM, index, epoch])


def _drawing_digest() -> str:
    """Return a short hash of the code that decides what a portrait looks like."""
    sources = [Path(str(module.__file__)).read_bytes() for module in (world, portraits)]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:8]


def _render_shard(path: Path, seed: int, split: str, start: int, stop: int) -> Path:
    people = [person_at(seed, split, index) for index in range(start, stop)]
    pixels = np.stack([portraits.draw_portrait(person) for person in people])
    with written_whole(path) as partial:
        save_file({"pixels": pixels}, partial, metadata={"people": json.dumps([asdict(person) for person in people])})
    return path


def render_portraits(folder: Path, split: str, num_portraits: int, seed: int) -> Iterator[Path]:
    """Render what is missing of a split, in shards on all cores; yield each shard's path as it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for start in range(0, num_portraits, SHARD_SIZE):
        stop = min(start + SHARD_SIZE, num_portraits)
        path = folder / f"{split}-seed{seed}-{_drawing_digest()}-{start:06d}-{stop:06d}.safetensors"
        jobs.append((path, seed, split, start, stop))
    with ProcessPoolExecutor(num_cores()) as pool:
        waiting = [None if job[0].exists() else pool.submit(_render_shard, *job) for job in jobs]
        for job, future in zip(jobs, waiting, strict=True):
            yield job[0] if future is None else future.result()


def load_portraits(paths: list[Path]) -> Portraits:
    """Read shards back, in the order given."""
    pixels, people = [], []
    for path in paths:
        with safe_open(path, framework="np") as file:
            pixels.append(file.get_tensor("pixels"))
            people += [
                Person(**{name: row[name] for name in PERSON_FIELDS}) for row in json.loads(file.metadata()["people"])
            ]
    return Portraits(np.concatenate(pixels), people)
