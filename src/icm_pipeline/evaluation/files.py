"""What an evaluation leaves: all figures as JSON, as CSV under stable names, and per image."""

import csv
from pathlib import Path

import numpy as np

from icm_pipeline.evaluation.measures import JudgedImage
from icm_pipeline.labelers.base import Questions
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.results.evaluation import SIDES, Evaluation
from icm_pipeline.results.images import IMAGES_TABLE, WAS


def write_files(folder: Path, evaluation: Evaluation, images: list[JudgedImage], others: Questions) -> None:
    """Write metrics.json, metrics.csv and images.csv; others: what was asked besides the attribute."""
    evaluation.write(folder)
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["metric", "value"], *evaluation.rows()])
    options = list(next(iter(evaluation.shares["steered"].values())))
    asked = [(name, side) for name in others for side in SIDES if side in evaluation.shares]
    figures = ["clip_i", "clip_t", "ssim", *(f"{side}_{option}" for side in SIDES for option in options)]
    with (folder / IMAGES_TABLE).open("w", newline="", encoding="utf-8") as file:
        writer, also = csv.writer(file), [f"{name}_{side}" for name, side in asked]
        asked_before = any(image.row.shown is not None for image in images)
        writer.writerow(["id", "prompt", "seed", "steered_to", *figures, *also, "problem", *[WAS] * asked_before])
        nothing = {evaluation.attribute: np.full(len(options), np.nan)}
        for image in images:
            row, like, seen = image.row, image.likeness, image.seen
            shown = [value for side in SIDES for value in seen.get(side, nothing)[evaluation.attribute]]
            numbers = [f"{value:.6f}" for value in (like.clip_i, like.clip_t, like.ssim, *shown)]
            labels = [["", *others[name]][hard_labels(seen[side][name][None])[0] + 1] for name, side in asked]
            was = [row.shown or ""] * asked_before
            writer.writerow([row.image_id, row.prompt, row.seed, row.option, *numbers, *labels, image.problem, *was])
