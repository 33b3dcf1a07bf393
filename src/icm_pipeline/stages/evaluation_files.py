"""What an evaluation leaves: all figures as JSON, as CSV under stable names, and per image."""

import csv
from dataclasses import dataclass
from typing import Any

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.artifacts import METRICS, Artifact, write_json
from icm_pipeline.stage_table import StageContext
from icm_pipeline.stages.image_pairs import ImagePairs
from icm_pipeline.stages.likeness import Likeness

IMAGES_TABLE = "images.csv"


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
        ("fd_original/mean", _mean(metrics["fd_original"])),
        ("fd/mean", _mean(metrics["fd"])),
        ("fd/floor", metrics["fd_floor"]),
        ("fd_change/mean", _mean(metrics["fd_change"])),
        *((f"{name}/mean", metrics[name]) for name in ("clip_i", "clip_t_original", "clip_t", "ssim")),
        ("obeyed/mean", metrics["obeyed"]),
        *((f"{name}/mean", reference.get(name)) for name in ("fid_original", "fid", "kid_original", "kid")),
    ]
    for name in ("fd_original", "fd") if metrics["fd_original"] else ("fd",):
        rows += [(f"{name}/{prompt}", value) for prompt, value in metrics[name]["by_prompt"].items()]
    for name in ("parity_gap", "worst_share"):
        rows += [(f"{name}{when}/mean", _mean(metrics[f"{name}{when}"])) for when in ("_original", "")]
    rows += [(f"obeyed/{option}", value) for option, value in metrics["obeyed_by_option"].items()]
    for name in ("kept", "drift"):
        rows += [(f"{name}/{attribute}", value) for attribute, value in metrics[name].items()]
    for side in ("original", "steered"):
        if side not in agreement:
            continue
        rows += [(f"agreement/{side}", agreement[side]["share"]), (f"kappa/{side}", agreement[side]["kappa"])]
    return [(name, float(value)) for name, value in rows if value is not None]


def _mean(figure: dict[str, Any] | None) -> float | None:
    return None if figure is None else figure["mean"]


def _write_images_table(context: StageContext, images: PerImage) -> None:
    """Write a line per image; nan where a judge saw nothing or a picture is not there, with the problem beside it."""
    pairs, likeness = images.pairs, images.likeness
    nothing = np.full((len(pairs.rows), len(images.options)), np.nan)
    sides = ("original", "steered")
    with (context.folder / IMAGES_TABLE).open("w", newline="", encoding="utf-8") as file:
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


@dataclass(frozen=True)
class SteeredImages:
    """An evaluation's steered images, in the order of their ids: prompts, options steered to, probabilities [n, K]."""

    prompts: list[str]
    steered_to: list[str]
    shown: Floats


def read_steered(evaluation: Artifact) -> SteeredImages:
    """Return the steered images of an evaluation."""
    with evaluation.path(IMAGES_TABLE).open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["id"])
    options = [name for name in rows[0] if name.startswith("steered_") and name != "steered_to"]
    return SteeredImages(
        [row["prompt"] for row in rows],
        [row["steered_to"] for row in rows],
        np.array([[float(row[option]) for option in options] for row in rows]),
    )
