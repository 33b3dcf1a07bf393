"""Make the evaluation images again, each steered by the method towards the option it was assigned."""

import logging
from collections import Counter
from dataclasses import asdict

from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, evaluation_jobs
from icm_pipeline.methods.assignment import assign_options
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.registry import method_named
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.steering import Steering
from icm_pipeline.stages.image_sets import evaluation_set_work, make_images, planned, store

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
