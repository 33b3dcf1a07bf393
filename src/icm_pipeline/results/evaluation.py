"""What an evaluation leaves, read back."""

import csv
from dataclasses import dataclass
from typing import Any

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.store.artifacts import Artifact

STEERING = "steering.json"
METRICS = "metrics.json"
IMAGES_TABLE = "images.csv"


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
