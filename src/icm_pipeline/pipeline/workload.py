"""How much a stage computes and keeps, which its file's `work` derives from the settings and the model's outline.

The sizes are those of the files and buffers that the stages write and fill; docs/planning.md has the formulas.
"""

from dataclasses import dataclass, replace

from icm_pipeline.config.models import ModelConfig, OutlineConfig

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
FLOAT_BYTES = DTYPE_BYTES["float32"]  # of probes, vectors, and activations until they are kept


@dataclass(frozen=True)
class Workload:
    """What a stage has to do and keep; None is unknown."""

    num_images: int = 0
    """Made, recorded or judged."""
    num_pictures: int = 0
    """Of the images, those that are written."""
    passes: int = 0
    """Of the denoiser: one image at one step."""
    prefix_passes: int = 0
    """Of the passes, those before the first steered step, which all runs with the same originals can share."""
    prefix_bytes: int | None = 0
    """What the denoiser's outputs in these passes take on disk."""
    num_probes: int | None = 0
    values: int | None = 0
    """Numbers that are recorded, or that probes are fitted to."""
    stored: int | None = 0
    """Bytes of the artifact without its pictures."""
    temporary: int | None = 0
    """Bytes more on disk before the artifact is complete."""
    device_memory: int | None = 0
    """Bytes of pooled activations on the device."""
    memory: int | None = 0
    """Bytes of pooled activations in memory, and of what is made of them."""

    def less(self, num_kept: int) -> "Workload":
        """Return what is left when an interrupted job has made some of the images."""
        left = (self.num_images - num_kept) / self.num_images if self.num_images else 1.0
        return replace(
            self,
            num_images=self.num_images - num_kept,
            num_pictures=round(self.num_pictures * left),
            passes=round(self.passes * left),
            temporary=None if self.temporary is None else round(self.temporary * left),
        )


def passes_per_run(num_steps: int, scheduler: str | None) -> int:
    """Return how often a run of so many steps calls the denoiser.

    Heun calls it twice at every step but the first, PNDM at its second; a pipeline's own is taken to call it once.
    """
    return {"heun": 2 * num_steps - 1, "pndm": num_steps + 1}.get(scheduler or "", num_steps)


def passes_before(step: int, scheduler: str | None) -> int:
    """Return how many of these calls come before a step."""
    return {"heun": max(2 * step - 1, 0), "pndm": step + (step > 1)}.get(scheduler or "", step)


def picture_size(model: ModelConfig, outline: OutlineConfig | None) -> tuple[int, int] | None:
    """Return height and width in pixels, None if only the model's files could tell."""
    size = outline.size if outline else None
    height, width = model.height or size, model.width or size
    return None if height is None or width is None else (height, width)


def bytes_kept(store: str, num_images: int, values: int) -> int:
    """Return what pooled activations take on disk, values numbers of each image: in float16 beside scale and mean."""
    return num_images * values * DTYPE_BYTES[store] + (2 * values * FLOAT_BYTES if store == "float16" else 0)


def width_sum(outline: OutlineConfig) -> int:
    """Return how many numbers are recorded of an image at one step: the widths of all sites."""
    return sum(width * count for pairs in outline.widths.values() for width, count in pairs)
