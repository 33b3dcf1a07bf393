"""Where each localizer sees the choice, layer by layer beside the probes, and how far their rankings agree."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.report.figures.accuracy import LABEL_HEIGHT, MOST_HEIGHT, ROW_HEIGHT
from icm_pipeline.report.figures.style import figure, short_names, spread_ticks, wrapped
from icm_pipeline.results.localizers import Correlation

NUMBERED = 32  # layers; of more, cells are too low for a figure each
COLUMN_WIDTH, STEPS_WIDTH = 0.62, 2.3  # inches of a column with a figure, and of a panel over steps


@dataclass(frozen=True)
class Panel:
    """A heat map with a row a layer."""

    title: str
    values: Floats
    """[layers, columns]; NaN for nothing known, which is hatched."""
    columns: list[str]
    """What stands below each column."""
    below: str
    """What the columns are."""
    scale: str
    """What the colour bar says."""
    colors: str
    limits: tuple[float, float]
    is_numbered: bool = False
    """Whether each cell has its figure."""

    @property
    def width(self) -> float:
        return max(1.3, COLUMN_WIDTH * len(self.columns)) if self.is_numbered else STEPS_WIDTH


def plot_localizers(path: Path, layers: Sequence[str], panels: Sequence[Panel], title: str) -> Path:
    """Draw panels side by side, layers in the network's order from top to bottom."""
    row_height = min(ROW_HEIGHT, MOST_HEIGHT / len(layers))
    height, widths = 1.9 + row_height * len(layers), [panel.width for panel in panels]
    ticks = spread_ticks(len(layers), [], math.ceil(LABEL_HEIGHT / row_height))
    names = short_names(layers)
    size, options = (1.7 + 0.3 * len(panels) + sum(widths), height), {"squeeze": False, "sharey": True}
    with figure(path, size, 1, len(panels), **options, width_ratios=widths) as (drawing, axes):
        for axis, panel in zip(axes[0], panels, strict=True):
            low, high = panel.limits
            drawn = axis.imshow(panel.values, aspect="auto", cmap=panel.colors, vmin=low, vmax=high)
            axis.patch.set(facecolor="white", hatch="////", edgecolor="#d0d0d0", linewidth=0)  # where values are NaN
            shown = range(0, len(panel.columns), max(1, len(panel.columns) // 5))
            axis.set_xticks(list(shown), [panel.columns[column] for column in shown], fontsize=7)
            axis.set_xlabel(wrapped(panel.below, panel.width + 0.2, 7), fontsize=7)
            axis.set_title(wrapped(panel.title, panel.width, 9, bold=True), fontsize=9)
            axis.spines[:].set_visible(False)
            axis.tick_params(length=0)
            if panel.is_numbered and len(layers) <= NUMBERED:
                _write_figures(axis, panel)
            bar = drawing.colorbar(drawn, ax=axis, location="bottom", aspect=16, shrink=0.9)
            bar.set_label(wrapped(panel.scale, panel.width + 0.2, 7), fontsize=7)
            bar.ax.tick_params(labelsize=7)
            bar.outline.set_visible(False)
        axes[0][0].set_yticks(ticks, [names[row] for row in ticks], fontsize=7)
        drawing.suptitle(wrapped(title, size[0] - 0.2, 11), x=0.01, ha="left", fontsize=11)
    return path


def plot_correlations(path: Path, names: Sequence[str], correlations: Sequence[Correlation]) -> Path:
    """Draw the rank correlation of each pair of localizers with its interval."""
    place = {name: index for index, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    with figure(path, (1.9 + 1.05 * (len(names) - 1), 1.3 + 0.62 * (len(names) - 1))) as (drawing, axis):
        for each in correlations:
            column, row = sorted((place[each.one], place[each.other]))
            values[row, column] = each.rho
            low, high = each.interval_95
            text = f"{each.rho:.2f}\n{low:.2f} to {high:.2f}\n{each.num_layers} layers"
            color = "white" if abs(each.rho) > 0.6 else "black"
            axis.text(column, row - 1, text, ha="center", va="center", fontsize=7, color=color)
        drawn = axis.imshow(values[1:, :-1], cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        titles = [wrapped(name, 1.0, 8) for name in names]
        axis.set_xticks(range(len(names) - 1), titles[:-1], fontsize=8)
        axis.set_yticks(range(len(names) - 1), titles[1:], fontsize=8)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        axis.set_title("Do localizers rank layers alike?")
        drawing.colorbar(drawn, ax=axis, label="Spearman's rho", aspect=20)
    return path


def _write_figures(axis: Any, panel: Panel) -> None:
    largest = max(map(abs, panel.limits))
    for row, column in np.ndindex(*panel.values.shape):
        value = panel.values[row, column]
        if np.isfinite(value):
            color = "white" if abs(value) > 0.6 * largest else "black"
            axis.text(column, row, f"{value:+z.2f}", ha="center", va="center", fontsize=6.5, color=color)
