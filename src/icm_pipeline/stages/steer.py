"""Make the evaluation images again with the chosen layers shifted, each image towards the option it was assigned."""

import logging
from collections import Counter
from dataclasses import asdict, replace
from functools import cache

from icm_pipeline.artifacts import SELECTION, STEERING, write_json
from icm_pipeline.backbones.base import Backbone
from icm_pipeline.hooks import hooked
from icm_pipeline.image_sets import IMAGES, SAMPLES, Batch, make_image_set
from icm_pipeline.interventions.assignment import assign_options
from icm_pipeline.interventions.shift import Shift
from icm_pipeline.plots.grid import draw_sheet
from icm_pipeline.prefixes import shared_prefix
from icm_pipeline.prompts import Job
from icm_pipeline.sampling import Sample, decode, denoise
from icm_pipeline.stage_table import StageContext
from icm_pipeline.stages.models import evaluation_jobs, load_model, prefix_store
from icm_pipeline.vectors import Strength, load_vectors

VECTORS = "vectors.safetensors"  # of the steered layers, with alpha and window: all that steering elsewhere takes

log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    settings = context.settings
    method, names = settings.method, list(settings.attribute.options)
    selection = context.parents["select"].read_json(SELECTION)
    layers = selection["layers"] if method.name == "icm" else []
    vectors = load_vectors(context.parents["probe"].path(f"vectors-{method.direction}.safetensors"), layers)
    if vectors.options != tuple(names):
        raise ValueError(f"The vectors are for the options {vectors.options}, the attribute has {tuple(names)}.")
    if method.vector == "mean":
        vectors = vectors.averaged()
    jobs, prefixes = evaluation_jobs(settings), prefix_store(context)
    shares = method.target_shares or [1 / len(names)] * len(names)
    assigned = assign_options(
        [job.prompt_index for job in jobs], shares, method.assignment, method.draw_size, settings.seed
    )
    option_of = {job.image_id: int(option) for job, option in zip(jobs, assigned, strict=True)}
    log.info(
        "steer: %s at alpha %g (%s) in %d layers: %s", method.name, settings.alpha, method.alpha_unit, len(layers),
        dict(Counter(names[option] for option in assigned)),
    )  # fmt: skip

    @cache
    def backbone_once() -> Backbone:
        return load_model(settings.model)

    def make_at(alphas: list[float], batch: list[Job]) -> list[list[Sample]]:
        """Make a batch's images at each of some alphas, all in one batch."""
        backbone, together = backbone_once(), batch * len(alphas)
        shift = Shift(
            vectors,
            [option_of[job.image_id] for job in together],
            [alpha for alpha in alphas for _ in batch],
            relative=method.alpha_unit == "relative",
            first_step=method.first_step,
            last_step=method.last_step,
            norm_preserving=method.norm_preserving,
        )
        ids = [job.image_id for job in together]
        with (
            hooked(backbone, layers, shift, len(together)) as clock,
            shared_prefix(backbone, clock, prefixes, ids, method.first_step),
        ):
            latents = denoise(backbone, together)
        samples = decode(backbone, together, latents)
        return [samples[start : start + len(batch)] for start in range(0, len(samples), len(batch))]

    def make_batch(batch: list[Job]) -> Batch:
        if context.alongside is None:
            return Batch(len(batch), make_at([settings.alpha], batch)[0])
        return Batch(len(batch), context.alongside.make(batch, make_at))

    complete = make_image_set(
        context.folder,
        jobs,
        make_batch,
        settings.model.batch_size,
        settings.generate.shard_size,
        title="steer",
        options=[names[option] for option in assigned],
        share=context.share,
        grow=settings.model.grow_batch,
    )
    if not complete:
        return
    used = Strength(
        settings.alpha, method.alpha_unit, method.first_step, method.last_step, settings.model.num_steps,
        method.norm_preserving,
    )  # fmt: skip
    if layers:
        replace(vectors, strength=used).save(context.folder / VECTORS)
    steering = asdict(method)
    steering |= {"method": steering.pop("name"), "alpha": settings.alpha if layers else 0.0, "layers": layers}
    write_json(context.folder / STEERING, {**steering, "rule": selection["rule"], "kind": selection["kind"]})
    draw_sheet(context.folder / SAMPLES, context.folder / IMAGES)
