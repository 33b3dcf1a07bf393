"""Make the evaluation images again, each steered by the method towards the option it was assigned."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace

from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job, evaluation_jobs
from icm_pipeline.generation.prefixes import PrefixStore, shared_prefix
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.images.making import ImageSet
from icm_pipeline.methods.assignment import assign_options
from icm_pipeline.methods.base import Method, MethodInputs
from icm_pipeline.methods.registry import method_named
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.steering import Steering
from icm_pipeline.stages.image_sets import evaluation_set_work, planned, store

WHOLE_MODEL = Selection([], rule="all", kind="mixed", ranking=[])  # of a method that acts wherever it likes
log = logging.getLogger(__name__)
work = evaluation_set_work


def run(context: StageContext) -> None:
    settings, method = context.settings, method_named(context.settings.method.name)
    selection = Selection.read(context.parents["select"]) if "select" in method.needs else WHOLE_MODEL
    layers = selection.layers if method.in_layers else []
    jobs, names = evaluation_jobs(settings), list(settings.attribute.options)
    if method.whole_prompts:
        jobs = sorted(jobs, key=lambda job: job.prompt_index)
    assigned = _assigned(settings, jobs)
    log.info(
        "steer: %s at alpha %g (%s) in %d layers: %s", method.name, settings.alpha, settings.method.alpha_unit,
        len(layers), dict(Counter(names[option] for option in assigned.values())),
    )  # fmt: skip
    inputs = MethodInputs(settings, context.parents, layers, assigned)
    size = settings.evaluate.images_per_prompt if method.whole_prompts else None
    images = planned(context, jobs, [names[option] for option in assigned.values()], size)
    if store(images, make_images(context, method, inputs, images), "steer"):
        method.keep(inputs, context.folder)
        how = asdict(settings.method)
        name, alpha = how.pop("name"), settings.alpha if "alpha" in method.reads else 0.0
        how["params"] = how["params"] or None
        steering = Steering(**how, method=name, alpha=alpha, layers=layers, rule=selection.rule, kind=selection.kind)
        steering.write(context.folder)


def _assigned(settings: Settings, jobs: list[Job]) -> dict[str, int]:
    """Return the index of the option that each image is steered to, by image id."""
    method, num_options = settings.method, len(settings.attribute.options)
    shares = method.target_shares or [1 / num_options] * num_options
    prompts = [job.prompt_index for job in jobs]
    options = assign_options(prompts, shares, method.assignment, method.draw_size, settings.seed).tolist()
    return dict(zip([job.image_id for job in jobs], options, strict=True))


def make_images(context: StageContext, method: Method, inputs: MethodInputs, images: ImageSet) -> Iterator[Batch]:
    """Yield the missing images batch by batch; the model is loaded for the first."""
    settings, first_step = context.settings, context.settings.method.first_step
    size = settings.evaluate.images_per_prompt if method.whole_prompts else settings.compute.batch_size
    folder = Keys(settings).prefix_folder()
    prefixes = PrefixStore(folder) if folder else None  # shared by all runs with these images
    backbone = context.models.load(settings.model, settings.compute)
    method.check_family(backbone)

    def make(jobs: list[Job]) -> Batch:
        if method.whole_prompts and len(jobs) < size:
            raise ValueError(
                f"method={method.name} needs all {size} images of a prompt in one batch, and they do not fit into "
                "memory: lower evaluate.images_per_prompt."
            )
        ids = [job.image_id for job in jobs]
        generated = [replace(job, prompt=method.prompt_of(job, inputs)) for job in jobs]
        with (
            hooked(backbone, [], None, len(jobs)) as clock,
            method.applied(backbone, inputs, jobs),
            shared_prefix(backbone, clock, prefixes, ids, first_step),
        ):
            latents = denoise(backbone, generated)
        return Batch(jobs, decode(backbone, jobs, latents))

    yield from fitting(images.missing, make, size, settings.compute.grow_batch and not method.whole_prompts)
