"""The table of an evaluation's images, read back by id."""

import csv
from dataclasses import dataclass

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.store.artifacts import Artifact

IMAGES_TABLE = "images.csv"
WAS = "was"  # the column of what each image showed before, where that decided which were steered


@dataclass(frozen=True)
class SteeredImage:
    """A steered image and the judge's verdict."""

    prompt: str
    steered_to: str
    shown: Floats
    """A probability per option [K]."""
    was: str | None = None
    """The option that it showed before, where that decided whether it was steered; empty if unknown."""


def read_steered(evaluation: Artifact) -> dict[str, SteeredImage]:
    """Return the steered images of an evaluation by id."""
    with evaluation.path(IMAGES_TABLE).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    options = [name for name in rows[0] if name.startswith("steered_") and name != "steered_to"]
    return {
        row["id"]: SteeredImage(
            row["prompt"], row["steered_to"], np.array([float(row[name]) for name in options]), row.get(WAS)
        )
        for row in rows
    }
