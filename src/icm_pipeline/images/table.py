"""The table of a set of images: one row an image."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from icm_pipeline.generation.jobs import Job
from icm_pipeline.images.pictures import read_picture
from icm_pipeline.store.artifacts import Artifact

TABLE = "images.csv"
IMAGES = "images"
SAMPLES = "samples.png"  # the first images side by side, to look at
SHOWN = "shown"
TRIED = "tried"
TURNED = "turned"
YES = "yes"
COLUMNS = ("id", "prompt", "prompt_index", "seed", "option", "path")


@dataclass(frozen=True)
class ImageRow:
    """One line of an image table. Of images from elsewhere the prompt may be empty and the seed None."""

    image_id: str
    prompt: str
    prompt_index: int
    seed: int | None
    option: str
    """What the image was steered to; empty if it was not."""
    path: Path
    problem: str = ""
    """Why the picture cannot be read."""
    shown: str | None = None
    """What its option was assigned by: what it shows unsteered, empty if that could not be told; None: by nothing."""

    tried: str | None = None
    """The option that it was steered to on trial, taken or not, empty for none; None where there were no trials."""
    turned: bool = False
    """Whether it was then seen to show that."""

    @property
    def is_original(self) -> bool:
        """Whether it was left as it is, because of what it shows or what its prompt names."""
        return self.shown is not None and self.option in ("", self.shown)


def write_table(
    folder: Path, jobs: list[Job], options: list[str], more: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Write a row an image; more: further columns, as SHOWN where options were assigned by what images showed."""
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = dict(more or {})
        writer.writerow([*COLUMNS, *columns])
        for index, (job, option) in enumerate(zip(jobs, options, strict=True)):
            path = f"{IMAGES}/{job.image_id}.png"
            row = [job.image_id, job.prompt, job.prompt_index, job.seed, option, path]
            writer.writerow([*row, *(column[index] for column in columns.values())])


def read_table(artifact: Artifact) -> list[ImageRow]:
    """Return the rows of an artifact's table of images, in its order."""
    return _read(artifact.path)


def read_made(folder: Path) -> list[ImageRow]:
    """Return the rows of a set that has just been made, before it is an artifact."""
    return _read(folder.joinpath)


def _read(path: Callable[[str], Path]) -> list[ImageRow]:
    with path(TABLE).open(newline="", encoding="utf-8") as file:
        return [
            ImageRow(
                row["id"], row["prompt"], int(row["prompt_index"]), int(row["seed"]), row["option"], path(row["path"]),
                shown=row.get(SHOWN), tried=row.get(TRIED), turned=row.get(TURNED) == YES,
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
