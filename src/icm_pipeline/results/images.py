"""The table of an evaluation's images, read back by id."""

import csv
from dataclasses import dataclass

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.metrics.outcomes import hard_labels
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
    was: str | None
    """The option that it showed before, where that decided whether it was steered; empty if unknown."""
    before: Floats
    """A probability per option of its original [K]; NaN if it has none."""
    options: tuple[str, ...]

    @property
    def sees(self) -> str:
        """The option that the judge sees; empty if none."""
        label = int(hard_labels(self.shown[None])[0])
        return "" if label < 0 else self.options[label]

    @property
    def has_missed(self) -> bool:
        """Whether it shows another option than it was steered to."""
        return bool(self.steered_to) and self.sees != self.steered_to


def read_steered(evaluation: Artifact) -> dict[str, SteeredImage]:
    """Return the steered images of an evaluation by id."""
    with evaluation.path(IMAGES_TABLE).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if name.startswith("steered_") and name != "steered_to"]
    options = tuple(name.removeprefix("steered_") for name in columns)
    return {
        row["id"]: SteeredImage(
            row["prompt"], row["steered_to"], np.array([float(row[name]) for name in columns]), row.get(WAS),
            np.array([float(row.get(f"original_{option}") or "nan") for option in options]), options,
        )
        for row in rows
    }  # fmt: skip
