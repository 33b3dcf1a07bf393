"""Grids of pictures: originals over their steered twins with the same seed."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icm_pipeline.images.sheet import SHOWN_SIZE, fitted
from icm_pipeline.images.table import ImageRow, Pictures
from icm_pipeline.report.figures.style import MISSED_COLOR, STEERED_COLOR, figure, wrapped

GAP = 4  # white pixels between an original and its twin
COLUMN_WIDTH = 0.75  # inches
LEAST_COLUMNS = 5  # of twins, so that the title and the prompts have room


def plot_twins(
    path: Path, steered: list[ImageRow], originals: list[ImageRow], title: str, missed: Collection[str] = ()
) -> Path:
    """Draw one row of twins per prompt: the original above, below it the same seed and what it was steered to.

    missed: ids of the images that show another option.
    """
    prompts = list(dict.fromkeys(row.prompt for row in steered))
    members = {prompt: [i for i, row in enumerate(steered) if row.prompt == prompt] for prompt in prompts}
    columns = max(*map(len, members.values()), LEAST_COLUMNS)
    width = COLUMN_WIDTH * columns
    title, headings = (
        wrapped(title, width, 10),
        {prompt: wrapped(_quoted(prompt), width, 8.5, True) for prompt in prompts},
    )
    under = {row.image_id: wrapped(_under(row, missed), COLUMN_WIDTH, 7) for row in steered}
    lines = max(map(_lines, under.values()))
    height = sum(1.66 + 0.145 * _lines(heading) + 0.115 * lines for heading in headings.values())
    size = (width, height + 0.17 * (1 + _lines(title)))
    with figure(path, size, len(prompts), columns, squeeze=False) as (drawing, axes):
        drawing.get_layout_engine().set(w_pad=0.02, h_pad=0.04, wspace=0, hspace=0)
        for axis in axes.flat:
            axis.set_axis_off()
        for row, (prompt, indices) in enumerate(members.items()):
            above, below = (Pictures([side[index] for index in indices]) for side in (originals, steered))
            for axis, index, original, twin in zip(axes[row], indices, above, below, strict=False):
                axis.imshow(_stacked(original, twin))
                look: Any = {"ha": "center", "va": "top", "fontsize": 7, "linespacing": 1.0}
                color = MISSED_COLOR if steered[index].image_id in missed else STEERED_COLOR
                text = under[steered[index].image_id]
                axis.text(0.5, -0.01, text, transform=axis.transAxes, color=color, **look)
            first, heading = axes[row, 0], headings[prompt]
            bold: Any = {"fontsize": 8.5, "fontweight": "bold", "in_layout": False, "va": "bottom"}
            first.text(0, 1.02, heading, transform=first.transAxes, **bold)
            first.set_title("\n".join(" " * _lines(heading)), fontsize=8.5)  # keeps room for it, which is wider
        drawing.suptitle(title, x=0.01, ha="left", fontsize=10)
    return path


def _quoted(prompt: str) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{prompt}\N{RIGHT DOUBLE QUOTATION MARK}"


def _under(row: ImageRow, missed: Collection[str]) -> str:
    if row.image_id in missed:
        return f"not {row.option}"
    return "as it was" if row.is_original else row.option


def _lines(text: str) -> int:
    return 1 + text.count("\n")


def _stacked(above: Image.Image, below: Image.Image) -> np.ndarray:
    """Return two pictures one above the other with a white gap, uint8 [2 * size + gap, size, 3]."""
    parts = [np.asarray(fitted(image, SHOWN_SIZE)) for image in (above, below)]
    return np.concatenate([parts[0], np.full((GAP, SHOWN_SIZE, 3), 255, np.uint8), parts[1]])
