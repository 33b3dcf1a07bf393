"""The heat map of probe accuracy for a page: a picture of one pixel a cell, with the numbers to read off it."""

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from PIL import Image

from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.report.figures.style import short_names, spread_ticks
from icm_pipeline.report.html.thumbnails import data_uri
from icm_pipeline.results.scores import Scores

MOST_HEIGHT = 900  # CSS pixels of all panels together
ROW_HEIGHT, LABEL_HEIGHT = 15, 13  # CSS pixels of a layer, if there is room, and of its name
STEPS_SHOWN = 10
COLORS = "viridis"
DIGITS = 3


@dataclass(frozen=True)
class Label:
    """A layer's name beside its row."""

    text: str
    top: float
    """Of the row's middle, in per cent of the panel."""
    is_steered: bool


@dataclass(frozen=True)
class Panel:
    """The layers of a kind, in the network's order."""

    name: str
    height: int
    """CSS pixels."""
    picture: str
    """A data URI, a pixel a cell."""
    labels: list[Label]
    layers: list[str]
    steered: list[bool]
    accuracy: list[list[float]]
    """Of each layer at each step."""


@dataclass(frozen=True)
class HeatMap:
    """Held-out accuracy over layers and steps."""

    panels: list[Panel]
    steps: list[int]
    shown_steps: list[tuple[float, int]]
    """Places, in per cent, and steps."""
    chance: float
    colors: list[str]
    """Of the bar from chance to 1."""


@dataclass(frozen=True)
class RankedLayer:
    """A layer among all."""

    rank: int
    layer: str
    kind: str
    score: float
    place: float
    """Of the score between chance and 1, in per cent."""
    best_step: int
    is_steered: bool


def heat_map(scores: Scores, steered: list[str]) -> HeatMap:
    """Return the heat map, a panel per kind of layers; steered: layers to mark."""
    row_height = max(1.0, min(ROW_HEIGHT, MOST_HEIGHT / len(scores.layers)))
    panels = [_panel(scores, kind, steered, row_height) for kind in scores.by_kind]
    num = len(scores.steps)
    shown = [(100 * (slot + 0.5) / num, scores.steps[slot]) for slot in range(0, num, ceil(num / STEPS_SHOWN))]
    bar = _colored(np.linspace(0, 1, 9)[None])[0]
    return HeatMap(panels, scores.steps, shown, scores.chance, [f"rgb({r} {g} {b})" for r, g, b in bar])


def ranked(scores: Scores, steered: list[str]) -> list[RankedLayer]:
    """Return the layers by mean accuracy, best first."""
    rows = sorted(scores.layers.items(), key=lambda item: -item[1].score)
    return [
        RankedLayer(
            rank,
            layer,
            KIND_NAMES[row.kind],
            row.score,
            100 * above_chance(row.score, scores.chance),
            scores.steps[int(np.argmax(row.accuracy))],
            layer in steered,
        )
        for rank, (layer, row) in enumerate(rows, 1)
    ]


def above_chance(accuracy: Any, chance: float) -> Any:
    """Return how far accuracies are between chance and 1, from 0 to 1."""
    return np.clip((accuracy - chance) / (1 - chance), 0, 1) if chance < 1 else 0 * accuracy


def _panel(scores: Scores, kind: str, steered: list[str], row_height: float) -> Panel:
    layers = [layer for layer, row in scores.layers.items() if row.kind == kind]
    accuracy = np.array([scores.layers[layer].accuracy for layer in layers])
    marked = [layer in steered for layer in layers]
    names = short_names(layers)
    rows = spread_ticks(len(layers), [row for row, is_marked in enumerate(marked) if is_marked],
                        ceil(LABEL_HEIGHT / row_height))  # fmt: skip
    return Panel(
        KIND_NAMES[kind], max(ROW_HEIGHT, round(row_height * len(layers))),
        data_uri(Image.fromarray(_colored(above_chance(accuracy, scores.chance))), lossless=True),
        [Label(names[row], 100 * (row + 0.5) / len(layers), marked[row]) for row in rows],
        layers, marked, np.round(accuracy, DIGITS).tolist(),
    )  # fmt: skip


def _colored(shares: np.ndarray) -> np.ndarray:
    """Return the colours of values from 0 to 1 [rows, columns], uint8 [rows, columns, 3]."""
    from matplotlib import colormaps

    return np.asarray(np.rint(255 * colormaps[COLORS](shares)[..., :3]), np.uint8)
