"""How much a stage computes and keeps, by arithmetic on the settings and the model's outline.

The sizes are those of the files and buffers that the stages write and fill; docs/planning.md has the formulas.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icm_pipeline.config.choices import DIRECTIONS
from icm_pipeline.config.schema import ModelConfig, OutlineConfig, Settings
from icm_pipeline.generation.jobs import fill_templates, recorded_steps
from icm_pipeline.machine.threads import num_cores

FLOAT_BYTES = 4  # activations, probes and vectors are kept in float32
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Workload:
    """What one stage has to do and keep.

    num_images: made, or judged; passes: of the denoiser, one image at one step; num_probes; values: numbers that are
    recorded, or that probes are fitted to. Bytes: `stored` of its artifact without pictures, `temporary` more on disk
    before it is done, `device_memory` and `memory` of pooled activations and what is made of them. None is unknown.
    """

    num_images: int = 0
    num_pictures: int = 0
    passes: int = 0
    num_probes: int | None = 0
    values: int | None = 0
    stored: int | None = 0
    temporary: int | None = 0
    device_memory: int | None = 0
    memory: int | None = 0


NOTHING = Workload()


def passes_per_run(num_steps: int, scheduler: str | None) -> int:
    """Return how often a run of so many steps calls the denoiser; a pipeline's own scheduler is taken to call it once.

    Heun looks twice at every step but the first, PNDM at its second.
    """
    return {"heun": 2 * num_steps - 1, "pndm": num_steps + 1}.get(scheduler or "", num_steps)


def passes_before(step: int, scheduler: str | None) -> int:
    """Return how many of these calls come before a step."""
    return {"heun": max(2 * step - 1, 0), "pndm": step + (step > 1)}.get(scheduler or "", step)


def num_probe_images(settings: Settings) -> int:
    prompts = fill_templates(settings.attribute.probe_templates, settings.attribute.probe_subjects)
    return len(prompts) * settings.generate.images_per_prompt


def num_evaluation_images(settings: Settings) -> int:
    return len(settings.attribute.evaluation_prompts) * settings.evaluate.images_per_prompt


def picture_size(model: ModelConfig, outline: OutlineConfig | None) -> tuple[int, int] | None:
    """Return height and width in pixels, None if only the model's files could tell."""
    height = model.height or (outline.size if outline else None)
    width = model.width or (outline.size if outline else None)
    return None if height is None or width is None else (height, width)


def has_prefix(settings: Settings) -> bool:
    """Say whether the steps before the first steered one are kept on disk."""
    generate = settings.generate
    return settings.method.first_step > 0 and generate.reuse_prefix and not (settings.model.compile or settings.force)


def prefix_bytes(settings: Settings, outline: OutlineConfig | None) -> int | None:
    """Return what the denoiser's outputs before the first steered step take for all evaluation images."""
    size = picture_size(settings.model, outline)
    if outline is None or size is None:
        return None
    model, first = settings.model, settings.method.first_step
    places = (size[0] // outline.factor) * (size[1] // outline.factor)
    calls = passes_before(first, model.scheduler) * rows_per_image(outline, model.guidance_scale, model.call)
    return num_evaluation_images(settings) * calls * outline.channels * places * DTYPE_BYTES[model.dtype]


def rows_per_image(outline: OutlineConfig, guidance_scale: float, call: Mapping[str, Any]) -> int:
    """Return how many rows of the denoiser's calls belong to an image at one step."""
    if outline.guided_above is None:
        return outline.rows + (call.get("true_cfg_scale", 1) > 1 and call.get("negative_prompt") is not None)
    return outline.rows + (guidance_scale > outline.guided_above)


def workloads(settings: Settings, outline: OutlineConfig | None) -> dict[str, Workload]:
    """Return the work of every stage of a configuration, from nothing; `steer` without what a prefix saves."""
    passes = passes_per_run(settings.model.num_steps, settings.model.scheduler)
    probe_set, evaluation_set = num_probe_images(settings), num_evaluation_images(settings)
    recorded = _recorded(settings, outline)
    made = Workload(evaluation_set, evaluation_set, evaluation_set * passes)
    looked_at = Workload(probe_set, probe_set, probe_set * passes)
    return {
        "generate": _with_recording(settings, looked_at, recorded) if settings.generate.record else looked_at,
        "extract": _with_recording(settings, Workload(probe_set, 0, probe_set * passes), recorded),
        "label": Workload(probe_set),
        "probe": _probing(settings, outline),
        "select": NOTHING,
        "fit": NOTHING,
        "originals": made,
        "steer": made,
        "evaluate": Workload(2 * evaluation_set),
        "report": NOTHING,
    }


def _width_sum(outline: OutlineConfig) -> int:
    return sum(width * count for pairs in outline.widths.values() for width, count in pairs)


def _recorded(settings: Settings, outline: OutlineConfig | None) -> int | None:
    """Return how many numbers are recorded of one image: its steps times the widths of all sites."""
    return None if outline is None else len(recorded_steps(settings)) * _width_sum(outline)


def _with_recording(settings: Settings, work: Workload, recorded: int | None) -> Workload:
    """Add what recording keeps: files of all layers beside those of all shards before these are removed, the buffers
    of a batch on the device beside the same joined; in memory a shard's batches, the same joined, and the next's."""
    if recorded is None:
        unknown = {name: None for name in ("values", "stored", "temporary", "device_memory", "memory")}
        return Workload(work.num_images, work.num_pictures, work.passes, **unknown)
    batch = settings.model.batch_size
    shard = -(-settings.generate.shard_size // batch) * batch
    bytes_each, num_images = FLOAT_BYTES * recorded, work.num_images
    return Workload(
        num_images=num_images,
        num_pictures=work.num_pictures,
        passes=work.passes,
        values=num_images * recorded,
        stored=num_images * bytes_each,
        temporary=num_images * bytes_each,
        device_memory=2 * min(batch, num_images) * bytes_each,
        memory=3 * min(shard, num_images) * bytes_each,
    )


def _probing(settings: Settings, outline: OutlineConfig | None) -> Workload:
    """Return the probes' work: weights and biases, a vector per direction and option, and the layers' mean norms are
    kept; a layer for each core is in memory beside them."""
    if outline is None:
        return Workload(num_probes=None, values=None, stored=None, memory=None)
    num_images, num_steps = num_probe_images(settings), len(recorded_steps(settings))
    num_layers = sum(count for pairs in outline.widths.values() for _, count in pairs)
    num_options = len(settings.attribute.options)
    columns = 1 if num_options == 2 else num_options
    wide = (columns + len(DIRECTIONS) * num_options) * _width_sum(outline)
    narrow = (columns + len(DIRECTIONS)) * num_layers
    kept = FLOAT_BYTES * num_steps * (wide + narrow)
    widest = max(width for pairs in outline.widths.values() for width, _ in pairs)
    return Workload(
        num_images=num_images,
        num_probes=num_layers * num_steps,
        values=num_images * num_steps * _width_sum(outline),
        stored=kept,
        memory=kept + num_cores() * num_images * num_steps * widest * FLOAT_BYTES,
    )
