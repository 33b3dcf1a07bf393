"""Grids of pictures: originals over their steered twins with the same seed."""

from collections.abc import Collection
from pathlib import Path
from textwrap import fill

import numpy as np
from PIL import Image

from icm_pipeline.images.sheet import SHOWN_SIZE, fitted
from icm_pipeline.images.table import ImageRow, Pictures
from icm_pipeline.report.figures.style import MISSED_COLOR, STEERED_COLOR, figure

GAP = 4  # white pixels between an original and its twin
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
    title = fill(title, 9 * columns)  # characters in a column's width
    size = (0.75 * columns, 1.92 * len(prompts) + 0.17 * (1 + len(title.splitlines())))
    with figure(path, size, len(prompts), columns, squeeze=False) as (drawing, axes):
        drawing.get_layout_engine().set(w_pad=0.02, h_pad=0.04, wspace=0, hspace=0)
        for axis in axes.flat:
            axis.set_axis_off()
        for row, (prompt, indices) in enumerate(members.items()):
            above, below = (Pictures([side[index] for index in indices]) for side in (originals, steered))
            for axis, index, original, twin in zip(axes[row], indices, above, below, strict=False):
                axis.imshow(_stacked(original, twin))
                option, failed = steered[index].option, steered[index].image_id in missed
                text, color = (f"not {option}", MISSED_COLOR) if failed else (option, STEERED_COLOR)
                axis.text(0.5, -0.01, text, transform=axis.transAxes, ha="center", va="top", fontsize=7, color=color)
            quoted, inside = (
                f"\N{LEFT DOUBLE QUOTATION MARK}{prompt}\N{RIGHT DOUBLE QUOTATION MARK}",
                axes[row, 0].transAxes,
            )
            axes[row, 0].text(0, 1.02, quoted, transform=inside, fontsize=8.5, fontweight="bold", in_layout=False)
            axes[row, 0].set_title(" ", fontsize=8.5)  # keeps room for the heading, which is wider than its picture
        drawing.suptitle(title, x=0.01, ha="left", fontsize=10)
    return path


def _stacked(above: Image.Image, below: Image.Image) -> np.ndarray:
    """Return two pictures one above the other with a white gap, uint8 [2 * size + gap, size, 3]."""
    parts = [np.asarray(fitted(image, SHOWN_SIZE)) for image in (above, below)]
    return np.concatenate([parts[0], np.full((GAP, SHOWN_SIZE, 3), 255, np.uint8), parts[1]])
