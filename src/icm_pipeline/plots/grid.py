"""Grids of pictures: originals over their steered twins with the same seed."""

from pathlib import Path

from PIL import Image

from icm_pipeline.image_sets import ImageRow, read_images
from icm_pipeline.plots.style import STEERED_COLOR, figure


def plot_twins(path: Path, steered: list[ImageRow], originals: list[ImageRow], title: str) -> Path:
    """Draw two rows of pictures per prompt, originals above, what each was steered to below it."""
    prompts = list(dict.fromkeys(row.prompt for row in steered))
    width = max(sum(row.prompt == prompt for row in steered) for prompt in prompts)
    size = (0.72 * width + 0.2, 1.9 * len(prompts) + 0.4)
    options = {"squeeze": False, "gridspec_kw": {"wspace": 0.02, "hspace": 0.02}}
    with figure(path, size, 2 * len(prompts), width, **options) as (drawing, axes):
        for axis in axes.flat:
            axis.set_axis_off()
        for number, prompt in enumerate(prompts):
            members = [index for index, row in enumerate(steered) if row.prompt == prompt]
            above = read_images([originals[index] for index in members])
            below = read_images([steered[index] for index in members])
            for column, index in enumerate(members):
                axes[2 * number, column].imshow(_enlarged(above[column]))
                axes[2 * number + 1, column].imshow(_enlarged(below[column]))
                axes[2 * number + 1, column].set_title(
                    f"\N{RIGHTWARDS ARROW} {steered[index].option}", fontsize=6.5, color=STEERED_COLOR, loc="center",
                    fontweight="normal", pad=2,
                )  # fmt: skip
            axes[2 * number, 0].set_title(f"\u201c{prompt}\u201d", fontsize=8, loc="left")
        drawing.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    return path


def _enlarged(image: Image.Image, least: int = 128) -> Image.Image:
    """Return small pictures enlarged, so that the figure's own scaling does not blur them."""
    if image.width >= least:
        return image
    factor = -(-least // image.width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
