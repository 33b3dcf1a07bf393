"""What a run's dashboard shows of each stage, read from the stage's artifact: made now or found, it looks the same.

The names are stable; docs/tracking.md lists them and the panels to lay out from them.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icm_pipeline.images.table import SAMPLES
from icm_pipeline.results.labels import LABELS
from icm_pipeline.results.scores import SCORES, SELECTION
from icm_pipeline.results.sweeps import Sweep
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import NoTracker, Tracker


def track_artifact(tracker: Tracker, artifact: Artifact) -> None:
    """Log a stage's scalars, tables and pictures, and where its artifact comes from."""
    if isinstance(tracker, NoTracker):
        return  # nothing to read files for
    stage = artifact.stage
    tracker.artifact(stage, artifact.key, artifact.manifest.parents, artifact.folder)
    shown = {"label": _label, "probe": _probe, "select": _select, "evaluate": _evaluate, "report": _report}
    if stage in shown:
        shown[stage](tracker, artifact)
    if SAMPLES in artifact.manifest.files:
        tracker.image(f"{stage}/samples", artifact.path(SAMPLES))


def track_sweep(
    tracker: Tracker, sweep: Sweep, table: tuple[list[str], list[list[str]]], figures: Sequence[Path]
) -> None:
    """Log a sweep's table (titles and cells), its best figures and its pictures."""
    best = min(sweep.jobs, key=lambda job: job.fd)
    tracker.table("sweep/jobs", *table)
    tracker.metrics(
        {
            "sweep/num_jobs": len(sweep.jobs),
            "sweep/num_left_out": len(sweep.left_out),
            "sweep/num_on_front": sum(sweep.front()),
            "sweep/lowest_fd": best.fd,
            "sweep/clip_i_at_lowest_fd": best.clip_i,
        }
    )
    for path in figures:
        tracker.image(f"sweep/{path.stem}", path)


def _label(tracker: Tracker, artifact: Artifact) -> None:
    with artifact.path(LABELS).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    options = list(artifact.manifest.config["attribute.options"])
    counts = Counter(row["option"] for row in rows)
    confidences = [max(float(row[option]) for option in options) for row in rows if row["option"]]
    tracker.metrics({f"label/{option}": counts[option] / len(rows) for option in options})
    if confidences:
        tracker.metrics({"label/confidence": sum(confidences) / len(confidences)})


def _probe(tracker: Tracker, artifact: Artifact) -> None:
    scores = artifact.read_json(SCORES)
    layers = scores["layers"]
    kinds: dict[str, list[float]] = {}
    for row in layers.values():
        kinds.setdefault(row["kind"], []).append(row["score"])
    tracker.metrics({f"probe/accuracy/{layer}": row["score"] for layer, row in layers.items()})
    means = {f"probe/mean/{kind}": sum(values) / len(values) for kind, values in kinds.items()}
    tracker.metrics({"probe/chance": scores["chance"], **means})
    cells = [
        [layer, row["kind"], step, accuracy]
        for layer, row in layers.items()
        for step, accuracy in zip(scores["steps"], row["accuracy"], strict=True)
    ]
    tracker.table("probe/heat_map", ["layer", "kind", "step", "accuracy"], cells)


def _select(tracker: Tracker, artifact: Artifact) -> None:
    selection = artifact.read_json(SELECTION)
    rows = [
        [place + 1, row["layer"], row["kind"], row["score"], row["layer"] in selection["layers"]]
        for place, row in enumerate(selection["ranking"])
    ]
    tracker.table("select/ranking", ["rank", "layer", "kind", "accuracy", "chosen"], rows)
    tracker.metrics({"select/num_layers": len(selection["layers"])})


def _evaluate(tracker: Tracker, artifact: Artifact) -> None:
    with artifact.path("metrics.csv").open(newline="", encoding="utf-8") as file:
        rows: list[list[Any]] = [[row["metric"], float(row["value"])] for row in csv.DictReader(file)]
    tracker.metrics(dict(rows))
    tracker.table("evaluate/metrics", ["metric", "value"], rows)


def _report(tracker: Tracker, artifact: Artifact) -> None:
    for name in sorted(artifact.manifest.files):
        if name.endswith(".png"):
            tracker.image(f"report/{name.removesuffix('.png')}", artifact.path(name))
