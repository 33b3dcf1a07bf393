"""What the pushes of an audit did: selected layers among random ones, each layer alone, what else moved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.report.figures.style import (
    KIND_COLORS,
    MISSED_COLOR,
    ORIGINAL_COLOR,
    QUIET_COLOR,
    STEERED_COLOR,
    figure,
    place_labels,
    short_names,
)
from icm_pipeline.results.verdicts import Table

NAMED = 2  # layers that are named for what they do, and for their accuracy, beside the selected ones
PANELS = {"obeyed": "share of images that obey", "fall of FD": "fall of FD", "1 - CLIP-I": "1 - CLIP-I"}
SORTS = {"random_layers": ("random layers", ORIGINAL_COLOR), "random_direction": ("random directions", "#e0b070")}
MARKS = {"selected": ("selected", STEERED_COLOR, "-"), "worst_layers": ("worst layers", MISSED_COLOR, "--"),
         "unsteered": ("unsteered", QUIET_COLOR, ":")}  # fmt: skip


def plot_sets(path: Path, table: Table) -> Path:
    """Draw how random sets of layers and random directions are distributed, with the selected layers marked."""
    rows = _records(table)
    with figure(path, (7.6, 2.7), 1, len(PANELS), squeeze=False) as (drawing, axes):
        for axis, (name, title) in zip(axes[0], PANELS.items(), strict=True):
            bins = np.linspace(*_range([float(row[name]) for row in rows]), 19)
            sorts = [sort for sort in SORTS if any(row["sort"] == sort for row in rows)]
            values = [[float(row[name]) for row in rows if row["sort"] == sort] for sort in sorts]
            labels, colors = ([SORTS[sort][part] for sort in sorts] for part in (0, 1))
            axis.hist(values, bins, color=colors, label=labels)
            for row in rows:
                if row["sort"] in MARKS:
                    label, color, line = MARKS[str(row["sort"])]
                    axis.axvline(float(row[name]), color=color, ls=line, lw=2, label=label)
            axis.set(xlabel=title)
            axis.yaxis.get_major_locator().set_params(integer=True)
        axes[0][0].set_ylabel("sets")
        handles, labels = axes[0][0].get_legend_handles_labels()
        drawing.legend(handles, labels, frameon=False, loc="outside lower center", ncols=5, fontsize=7)
    return path


def plot_layer_effects(path: Path, table: Table) -> Path:
    """Draw what pushing each layer alone does, over the accuracy of its probes."""
    rows = _records(table)
    with figure(path, (6.4, 3.8)) as (drawing, axis):
        for kind in dict.fromkeys(str(row["kind"]) for row in rows):
            own = [row for row in rows if row["kind"] == kind]
            x, y, low, high = ([float(row[name]) for row in own] for name in ("accuracy", "effect", "low", "high"))
            errors = np.abs(np.clip([low, high], -1.0, 1.0) - np.array(y))  # a probability changes by no more
            axis.errorbar(x, y, errors, fmt="o", ms=4, lw=0.8, color=KIND_COLORS[kind], label=KIND_NAMES[kind])
        chosen = [row for row in rows if row["selected"]]
        x, y = ([float(row[name]) for row in chosen] for name in ("accuracy", "effect"))
        axis.plot(x, y, "o", ms=9, mfc="none", mec="black", ls="", label="selected")
        axis.axhline(0, color=QUIET_COLOR, lw=0.8)
        axis.set(
            xlabel="accuracy of the layer's probes", ylabel="change of the wanted option's\nprobability, pushed alone"
        )
        drawing.legend(frameon=False, loc="outside lower center", ncols=4, fontsize=8)
        _name_layers(axis, rows)
    return path


def _name_layers(axis: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Number the points of the selected layers, and of the others that do or tell most; name them beside the panel."""
    names = short_names([str(row["layer"]) for row in rows])
    points = [(float(row["accuracy"]), float(row["effect"])) for row in rows]
    others = [number for number, row in enumerate(rows) if not row["selected"]]
    most = {number for part in (0, 1) for number in sorted(others, key=lambda each: -points[each][part])[:NAMED]}
    chosen = [number for number, row in enumerate(rows) if row["selected"] or number in most]
    chosen.sort(key=lambda number: points[number])
    labels = [
        axis.annotate(
            str(place), points[number], (6, 3), textcoords="offset points", fontsize=7, fontweight="bold", ha="left"
        )
        for place, number in enumerate(chosen, 1)
    ]
    key = "\n".join(f"{place}  {names[number]}" for place, number in enumerate(chosen, 1))
    axis.text(1.02, 1.0, key, transform=axis.transAxes, va="top", fontsize=7, linespacing=1.5)
    place_labels(axis, labels, points)


def plot_drift(path: Path, table: Table) -> Path:
    """Draw how far each other attribute's distribution moved, steered and between unsteered runs.

    Steered bars have the interval of their difference from the other, which is what the claim is about.
    """
    rows = _records(table)
    with figure(path, (6.4, 0.9 + 0.45 * len(rows))) as (_, axis):
        places = np.arange(len(rows))
        steered, seeds = ([float(row[name]) for row in rows] for name in ("steered", "other seeds"))
        reach = [[abs(float(row[end]) - float(row["difference"])) for row in rows] for end in ("high", "low")]
        axis.barh(places - 0.19, steered, 0.36, color=STEERED_COLOR, label="steered, and 95 % of the difference",
                  xerr=reach, error_kw={"elinewidth": 1, "capsize": 2})  # fmt: skip
        axis.barh(places + 0.19, seeds, 0.36, color=ORIGINAL_COLOR, label="other seeds, unsteered")
        axis.set_yticks(places, [str(row["attribute"]).replace("_", " ") for row in rows])
        axis.invert_yaxis()
        axis.set(xlabel="total variation, mean over prompts")
        axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return path


def plot_confusion(path: Path, table: Table) -> Path:
    """Draw how often the judge calls images of each option by each, as shares of a row."""
    called = table.columns[1:-1]
    counts = np.array([row[1:-1] for row in table.rows], float)
    shares = counts / counts.sum(1, keepdims=True)
    with figure(path, (1.8 + 0.8 * len(called), 1.2 + 0.55 * len(table.rows))) as (_, axis):
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(*shares.shape):
            color = "white" if shares[row, column] > 0.6 else "black"
            text = f"{shares[row, column]:.2f}\n({counts[row, column]:.0f})"
            axis.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
        axis.set_xticks(range(len(called)), called)
        axis.set_yticks(range(len(table.rows)), [str(row[0]) for row in table.rows])
        axis.set(xlabel="judge says", ylabel="truly shown")
        axis.spines[:].set_visible(False)
    return path


def _records(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return where bins begin and end, with a little room."""
    room = 0.03 * (max(values) - min(values)) or 0.01
    return min(values) - room, max(values) + room
