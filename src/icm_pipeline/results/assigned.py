"""Which option each evaluation image gets, where that depends on what it shows unsteered."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icm_pipeline.arrays import Floats
from icm_pipeline.store.artifacts import Artifact

ASSIGNED = "assigned.csv"


@dataclass(frozen=True)
class Assigned:
    """What becomes of an image."""

    option: str
    """What it is to show; empty if it is left alone whatever it shows, as its prompt names an option."""
    shown: str
    """What it shows, or is foretold to show, unsteered; empty if that could not be told."""
    tried: str = ""
    """The option that it was steered to on trial, whether that was taken or not; empty for none."""
    has_turned: bool = False
    """Whether it was then seen to show that."""

    @property
    def is_steered(self) -> bool:
        return bool(self.option) and self.option != self.shown


def write_assigned(folder: Path, ids: Sequence[str], assigned: Sequence[Assigned], seen: Floats) -> None:
    """Write a row an image, with what was seen of it unsteered [n, options]."""
    with (folder / ASSIGNED).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "option", "shown", *(f"seen_{number}" for number in range(seen.shape[1]))])
        for image_id, image, row in zip(ids, assigned, seen, strict=True):
            writer.writerow([image_id, image.option, image.shown, *(f"{value:.6f}" for value in row)])


def read_assigned(artifact: Artifact) -> dict[str, Assigned]:
    """Return what becomes of each image, by id."""
    with artifact.path(ASSIGNED).open(newline="", encoding="utf-8") as file:
        return {row["id"]: Assigned(row["option"], row["shown"]) for row in csv.DictReader(file)}
