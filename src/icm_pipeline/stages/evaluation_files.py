"""What an evaluation leaves: all figures as JSON, as CSV under stable names, and per image."""

import csv
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icm_pipeline.artifacts import Artifact, write_json
from icm_pipeline.image_sets import ImageRow
from icm_pipeline.stage_table import StageContext

Floats = NDArray[np.float64]

METRICS, IMAGES_TABLE = "metrics.json", "images.csv"


@dataclass(frozen=True)
class PerImage:
    """Figures of every pair: probabilities before and after [n, K]; CLIP-I, CLIP-T of the steered image, SSIM [n]."""

    rows: list[ImageRow]
    options: list[str]
    before: Floats
    after: Floats
    clip_i: Floats
    clip_t: Floats
    ssim: Floats


def write_files(context: StageContext, metrics: dict[str, Any], images: PerImage) -> None:
    """Write metrics.json, metrics.csv and images.csv into the artifact."""
    write_json(context.folder / METRICS, metrics)
    _write_images_table(context, images)
    with (context.folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["metric", "value"], *metrics_rows(metrics)])


def metrics_rows(metrics: dict[str, Any]) -> list[tuple[str, float]]:
    """Return every figure under its stable name, `<metric>/mean` or `<metric>/<prompt, option or attribute>`."""
    agreement, reference = metrics["agreement"] or {}, metrics["reference"] or {}
    rows: list[tuple[str, float | None]] = [
        ("fd_original/mean", metrics["fd_original"]["mean"]),
        ("fd/mean", metrics["fd"]["mean"]),
        ("fd/floor", metrics["fd_floor"]),
        ("fd_change/mean", metrics["fd_change"]["mean"]),
        *((f"{name}/mean", metrics[name]) for name in ("clip_i", "clip_t_original", "clip_t", "ssim")),
        ("obeyed/mean", metrics["obeyed"]),
        *((f"{name}/mean", reference.get(name)) for name in ("fid_original", "fid", "kid_original", "kid")),
    ]
    for name in ("fd_original", "fd"):
        rows += [(f"{name}/{prompt}", value) for prompt, value in metrics[name]["by_prompt"].items()]
    for name in ("parity_gap", "worst_share"):
        rows += [(f"{name}{when}/mean", metrics[f"{name}{when}"]["mean"]) for when in ("_original", "")]
    rows += [(f"obeyed/{option}", value) for option, value in metrics["obeyed_by_option"].items()]
    for name in ("kept", "drift"):
        rows += [(f"{name}/{attribute}", value) for attribute, value in metrics[name].items()]
    for side in ("original", "steered") if agreement else ():
        rows += [(f"agreement/{side}", agreement[side]["share"]), (f"kappa/{side}", agreement[side]["kappa"])]
    return [(name, float(value)) for name, value in rows if value is not None]


def _write_images_table(context: StageContext, images: PerImage) -> None:
    with (context.folder / IMAGES_TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = [f"{when}_{option}" for when in ("original", "steered") for option in images.options]
        writer.writerow(["id", "prompt", "seed", "steered_to", "clip_i", "clip_t", "ssim", *names])
        for row, *figures, p, q in zip(
            images.rows, images.clip_i, images.clip_t, images.ssim, images.before, images.after, strict=True
        ):
            numbers = [f"{value:.6f}" for value in (*figures, *p, *q)]
            writer.writerow([row.image_id, row.prompt, row.seed, row.option, *numbers])


def read_steered(evaluation: Artifact) -> tuple[list[str], Floats]:
    """Return the prompts and the probabilities [n, K] of an evaluation's steered images, in the order of their ids."""
    with evaluation.path(IMAGES_TABLE).open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["id"])
    options = [name for name in rows[0] if name.startswith("steered_") and name != "steered_to"]
    return [row["prompt"] for row in rows], np.array([[float(row[option]) for option in options] for row in rows])
