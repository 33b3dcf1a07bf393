"""What an evaluation leaves: all figures as JSON, as CSV under stable names, and per image."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.evaluation.likeness import Likeness
from icm_pipeline.evaluation.pairs import ImagePairs
from icm_pipeline.results.evaluation import IMAGES_TABLE, METRICS, metrics_rows
from icm_pipeline.store.files import write_json


@dataclass(frozen=True)
class PerImage:
    """Figures of every image: probabilities [n, K] of each side, and its likeness to its twin and prompt.

    others: what the judge sees of other attributes {attribute: {side: [n] options, "" where it cannot tell}}.
    """

    pairs: ImagePairs
    options: list[str]
    shown: dict[str, Floats]
    likeness: Likeness
    others: dict[str, dict[str, list[str]]]


def write_files(folder: Path, metrics: dict[str, Any], images: PerImage) -> None:
    """Write metrics.json, metrics.csv and images.csv into an artifact's folder."""
    write_json(folder / METRICS, metrics)
    _write_images_table(folder, images)
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["metric", "value"], *metrics_rows(metrics)])


def _write_images_table(folder: Path, images: PerImage) -> None:
    """Write a line per image; nan where a judge saw nothing or a picture is not there, with the problem beside it."""
    pairs, likeness = images.pairs, images.likeness
    nothing = np.full((len(pairs.rows), len(images.options)), np.nan)
    sides = ("original", "steered")
    with (folder / IMAGES_TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = [f"{side}_{option}" for side in sides for option in images.options]
        others = {
            f"{name}_{side}": seen[side] for name, seen in images.others.items() for side in sides if side in seen
        }
        writer.writerow(["id", "prompt", "seed", "steered_to", "clip_i", "clip_t", "ssim", *names, *others, "problem"])
        columns = list(zip(*others.values(), strict=True)) or [()] * len(pairs.rows)
        for row, problem, also, *figures, p, q in zip(
            pairs.rows, pairs.problems, columns, likeness.clip_i, likeness.clip_t, likeness.ssim,
            *(images.shown.get(side, nothing) for side in sides), strict=True,
        ):  # fmt: skip
            numbers = [f"{value:.6f}" for value in (*figures, *p, *q)]
            writer.writerow([row.image_id, row.prompt, row.seed, row.option, *numbers, *also, problem])
