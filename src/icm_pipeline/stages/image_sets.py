"""What the stages that make images share."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job, evaluation_jobs
from icm_pipeline.generation.prefixes import PrefixStore, shared_prefix
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.images.making import ImageSet, plan_images, store_images
from icm_pipeline.images.sheet import draw_sheet
from icm_pipeline.images.table import IMAGES, SAMPLES
from icm_pipeline.methods.base import Method, MethodInputs
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import DTYPE_BYTES, Workload, passes_before, passes_per_run, picture_size


def planned(
    context: StageContext, jobs: list[Job], options: Sequence[str] = (), batch_size: int | None = None
) -> ImageSet:
    """Return the images that a stage makes, or its share of them, with those that are there already."""
    settings = context.settings
    size = batch_size or settings.compute.batch_size
    return plan_images(context.folder, jobs, size, settings.generate.shard_size, options, context.share)


def make_images(context: StageContext, method: Method, inputs: MethodInputs, images: ImageSet) -> Iterator[Batch]:
    """Yield the missing evaluation images, changed by a method, batch by batch; the model is loaded for the first."""
    settings = context.settings
    size = method.batch_size(settings, settings.evaluate.images_per_prompt)
    folder = Keys(settings).prefix_folder()
    prefixes = PrefixStore(folder) if folder else None  # shared by all runs with these images
    backbone = context.models.load(settings.model, settings.compute)
    method.check_family(backbone.family, backbone.name)

    def make(jobs: list[Job]) -> Batch:
        check_whole(method, jobs, size)
        return changed(backbone, method, inputs, jobs, prefixes)

    yield from fitting(images.missing, make, size, settings.compute.grow_batch and not method.whole_prompts)


def check_whole(method: Method, jobs: list[Job], size: int) -> None:
    """Raise ValueError for a part of a prompt's images, where a method must have all of them in one batch."""
    if method.whole_prompts and len(jobs) < size:
        lower = "set a smaller method.params.group" if "group" in method.params else "lower evaluate.images_per_prompt"
        raise ValueError(
            f"method={method.name} needs {size} images of a prompt in one batch, and they do not fit into memory: "
            f"{lower}."
        )


def changed(
    backbone: Backbone, method: Method, inputs: MethodInputs, jobs: list[Job], prefixes: PrefixStore | None = None
) -> Batch:
    """Return the images of a batch of jobs, changed by a method; prefixes: the unsteered first steps of these ids."""
    ids = [job.image_id for job in jobs]
    generated = [replace(job, prompt=method.prompt_of(job, inputs)) for job in jobs]
    with (
        hooked(backbone, [], None, len(jobs)) as clock,
        method.applied(backbone, inputs, jobs),
        shared_prefix(backbone, clock, prefixes, ids, inputs.settings.method.first_step),
    ):
        latents = denoise(backbone, generated)
    return Batch(jobs, decode(backbone, jobs, latents))


def store(images: ImageSet, made: Iterable[Batch], title: str, halved: bool = False) -> bool:
    """Store batches as they are made, with a contact sheet of all; return whether the set is complete.

    halved: keep activations in float16.
    """
    complete = store_images(images, made, title, halved)
    if complete and (images.folder / IMAGES).exists():
        draw_sheet(images.folder / SAMPLES, images.folder / IMAGES)
    return complete


def evaluation_set_work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    """Return what making the evaluation images takes, steered or not."""
    model, num_images = settings.model, len(evaluation_jobs(settings))
    before = passes_before(settings.method.first_step, model.scheduler)
    size, prefix_bytes = picture_size(model, outline), None
    if outline is not None and size is not None:
        places = (size[0] // outline.factor) * (size[1] // outline.factor)
        outputs = before * _rows_per_image(outline, model.guidance_scale, model.call) * outline.channels * places
        prefix_bytes = num_images * outputs * DTYPE_BYTES[settings.compute.dtype]
    passes = num_images * passes_per_run(model.num_steps, model.scheduler)
    return Workload(num_images, num_images, passes, prefix_passes=num_images * before, prefix_bytes=prefix_bytes)


def _rows_per_image(outline: OutlineConfig, guidance_scale: float, call: Mapping[str, Any]) -> int:
    """Return how many rows of the denoiser's calls belong to an image at one step."""
    if outline.guided_above is None:
        return outline.rows + (call.get("true_cfg_scale", 1) > 1 and call.get("negative_prompt") is not None)
    return outline.rows + (guidance_scale > outline.guided_above)
