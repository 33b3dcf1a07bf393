"""Make the evaluation images again with the chosen layers shifted, each image towards the option it was assigned."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace

from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job, evaluation_jobs
from icm_pipeline.generation.prefixes import shared_prefix
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.methods.assignment import assign_options
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors, load_vectors
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.steering import Steering
from icm_pipeline.stages.image_sets import planned, prefix_store, store

VECTORS = "vectors.safetensors"  # of the steered layers, with alpha and window: all that steering elsewhere takes
log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    settings, method = context.settings, context.settings.method
    selection, jobs = Selection.read(context.parents["select"]), evaluation_jobs(settings)
    layers = selection.layers if method.name == "icm" else []
    vectors, names = _vectors(context, layers), list(settings.attribute.options)
    shares = method.target_shares or [1 / len(names)] * len(names)
    prompts = [job.prompt_index for job in jobs]
    assigned = assign_options(prompts, shares, method.assignment, method.draw_size, settings.seed).tolist()
    log.info(
        "steer: %s at alpha %g (%s) in %d layers: %s", method.name, settings.alpha, method.alpha_unit, len(layers),
        dict(Counter(names[option] for option in assigned)),
    )  # fmt: skip
    option_of = {job.image_id: option for job, option in zip(jobs, assigned, strict=True)}
    strength = Strength(
        settings.alpha, method.alpha_unit, method.first_step, method.last_step, norm_preserving=method.norm_preserving
    )
    images = planned(context, jobs, [names[option] for option in assigned])
    if store(images, _made(context, images.missing, vectors, layers, option_of, strength), "steer"):
        if layers:
            used = replace(strength, num_steps=settings.model.num_steps)
            replace(vectors, strength=used).save(context.folder / VECTORS)
        _write(context, selection, layers)


def _made(
    context: StageContext,
    missing: Iterable[list[Job]],
    vectors: SteeringVectors,
    layers: list[str],
    option_of: dict[str, int],
    strength: Strength,
) -> Iterator[Batch]:
    """Yield the missing images batch by batch; the model is loaded for the first."""
    model, prefixes = context.settings.model, prefix_store(context)
    backbone = context.models.load(model)

    def make(jobs: list[Job]) -> Batch:
        ids = [job.image_id for job in jobs]
        shift = Shift(vectors, [option_of[image_id] for image_id in ids], strength)
        with (
            hooked(backbone, layers, shift, len(jobs)) as clock,
            shared_prefix(backbone, clock, prefixes, ids, strength.first_step),
        ):
            latents = denoise(backbone, jobs)
        return Batch(jobs, decode(backbone, jobs, latents))

    yield from fitting(missing, make, model.batch_size, model.grow_batch)


def _vectors(context: StageContext, layers: list[str]) -> SteeringVectors:
    """Read the vectors of some layers, one per step or one for all steps; raises ValueError for other options."""
    method, names = context.settings.method, tuple(context.settings.attribute.options)
    vectors = load_vectors(context.parents["probe"].path(f"vectors-{method.direction}.safetensors"), layers)
    if vectors.options != names:
        raise ValueError(f"The vectors are for the options {vectors.options}, the attribute has {names}.")
    return vectors.averaged() if method.vector == "mean" else vectors


def _write(context: StageContext, selection: Selection, layers: list[str]) -> None:
    """Write what the images were steered by."""
    settings, how = context.settings, asdict(context.settings.method)
    name, alpha = how.pop("name"), settings.alpha if layers else 0.0
    steering = Steering(**how, method=name, alpha=alpha, layers=layers, rule=selection.rule, kind=selection.kind)
    steering.write(context.folder)
