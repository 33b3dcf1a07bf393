"""One look for all figures: names, colours and how a figure is written."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from icm_pipeline.arrays import Floats

KIND_COLORS = {
    "self_attention": "#0072b2", "cross_attention": "#d55e00", "feed_forward": "#7f7f7f",
    "gated_self_attention": "#56b4e9", "gated_feed_forward": "#b0a080", "block": "#cc79a7", "mixed": "#009e73",
    "bottleneck": "#e69f00",
}  # fmt: skip
ORIGINAL_COLOR, STEERED_COLOR, MISSED_COLOR, QUIET_COLOR = "#9aa5b1", "#0072b2", "#d55e00", "#5b6570"


def wrapped(text: str, inches: float, size: float, bold: bool = False, most_lines: int | None = None) -> str:
    """Return a text broken into lines that fit into a width at a font size; the last of too many ends in `...`."""
    characters = max(6, int(72 * inches / size / (0.64 if bold else 0.57)))
    lines = [part for line in text.split("\n") for part in fill(line, characters).split("\n")]
    if most_lines is not None and len(lines) > most_lines:
        lines[most_lines - 1 :] = [f"{lines[most_lines - 1][: characters - 3].rstrip()}..."]
    return "\n".join(lines)


def place_labels(axis: Any, labels: Sequence[Any], points: Sequence[tuple[float, float]]) -> None:
    """Move annotations to where they cover no point, no label before them and no legend, and are nearest to their own.

    points: every point of the panel, in its data's units. A label keeps the side that it was drawn on if it can.
    """
    axis.figure.draw_without_rendering()
    point, legend = axis.figure.dpi / 72, axis.get_legend()
    centres = axis.transData.transform(points)
    taken = np.hstack([centres - 4 * point, centres + 4 * point])  # boxes (left, bottom, right, top), as all here
    if legend:
        taken = np.vstack([taken, legend.get_window_extent().extents])
    for label in labels:
        label.set(va="bottom", in_layout=False)  # a long one would make the panel small
        own, extent = axis.transData.transform(label.xy), label.get_window_extent()
        places = _places(label, extent.height / point)
        aside = {"left": 0.0, "center": 0.5, "right": 1.0}
        corners = own + [
            (place["position"][0] * point - aside[place["ha"]] * extent.width, place["position"][1] * point)
            for place in places
        ]
        boxes = np.hstack([corners - point, corners + extent.size + point])
        inside = (boxes[:, :2] >= axis.bbox.min).all(1) & (boxes[:, 2:] <= axis.bbox.max).all(1)
        nearest = _gaps(boxes, own[None])[:, 0] <= _gaps(boxes, centres).min(1)
        covers = (boxes[:, None, :2] < taken[:, 2:]).all(2) & (boxes[:, None, 2:] > taken[:, :2]).all(2)
        free = inside & ~np.any(covers, axis=1)
        for fitting in (free & nearest, free, inside):  # better nearer to another point, or on something, than cut
            if fitting.any():
                label.set(**places[int(fitting.argmax())])
                break
        taken = np.vstack([taken, label.get_window_extent().extents])


def _places(label: Any, height: float) -> list[dict[str, Any]]:
    """Return where an annotation can stand: on its side, over and under its point, on the other side; then further."""
    own = label.get_ha()
    sides = {own: (3, -height / 2, -3 - height), "center": (5, -5 - height)}
    sides |= {"left" if own == "right" else "right": sides[own]}
    aside = {"right": -6, "center": 0, "left": 6}
    return [
        {"ha": side, "position": (aside[side], y + (step if y > 0 else -step))}
        for step, (side, heights) in product((*range(0, 120, 3), 0), sides.items())  # nearest again if none is free
        for y in heights
    ]


def _gaps(boxes: Floats, centres: Floats) -> Floats:
    """Return how far points are from boxes, in pixels [boxes, points]."""
    within = np.clip(centres, boxes[:, None, :2], boxes[:, None, 2:])
    return np.hypot(*np.moveaxis(within - centres, 2, 0))


def short_name(layer: str, has_more: bool = False) -> str:
    """Return a layer's name as short as a tick label needs: down_blocks.1.attentions.0...attn1 -> down 1.0.

    has_more: whether there are more blocks beside block 0, which then has its number too.
    """
    words = layer.split(".")
    stage = words[0].split("_")[0]
    numbers = [word for word in words[1:] if word.isdigit()]
    place = numbers[:-1] if "transformer_blocks" in words else numbers
    last = numbers[-1] if "transformer_blocks" in words and (numbers[-1] != "0" or not place or has_more) else ""
    return " ".join(part for part in (stage, ".".join(place), last and f"block {last}") if part)


def short_names(layers: Sequence[str]) -> list[str]:
    """Return short names that tell layers apart: where two would be equal, with the last word, `whole` of a block."""
    blocks = ".transformer_blocks."
    long = {layer.partition(blocks)[0] for layer in layers if re.search(rf"{re.escape(blocks)}[1-9]", layer)}
    names = [short_name(layer, layer.partition(blocks)[0] in long) for layer in layers]
    words = [re.sub(r"^\d+$", "whole", layer.rpartition(".")[2]) for layer in layers]
    return [f"{name} {word}" if names.count(name) > 1 else name for name, word in zip(names, words, strict=True)]


def spread_ticks(num_rows: int, wanted: Sequence[int], apart: int) -> list[int]:
    """Return the rows to label: the wanted first, then others, each at least `apart` from the next."""
    ticks: list[int] = []
    for row in (*wanted, *range(num_rows)):
        if all(abs(row - other) >= apart for other in ticks):
            ticks.append(row)
    return sorted(ticks)


def mark_original(axis: Any, value: float, vertical: bool = True) -> None:
    """Draw a figure of the unsteered images as a dashed line across the panel."""
    (axis.axvline if vertical else axis.axhline)(value, color=ORIGINAL_COLOR, lw=1.2, ls="--")
    place: Any = {"x": value, "y": 1.0, "va": "top", "transform": axis.get_xaxis_transform()}
    if not vertical:
        place = {"x": 1.0, "y": value, "va": "bottom", "ha": "right", "transform": axis.get_yaxis_transform()}
    axis.text(s=" original", color=QUIET_COLOR, fontsize=7, **place)


@contextmanager
def figure(path: Path, size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any) -> Iterator[Any]:
    """Yield (figure, axes) in the project's style and write the PNG on exit."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style: Any = {
        "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.titleweight": "bold",
        "axes.titlelocation": "left", "font.family": "DejaVu Sans", "font.size": 9, "savefig.dpi": 200,
    }  # fmt: skip
    with plt.rc_context(style):
        drawing, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **options)
        try:
            yield drawing, axes
            drawing.savefig(path, metadata={"Software": None})
        finally:
            plt.close(drawing)
