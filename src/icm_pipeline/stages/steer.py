"""Make the evaluation images again, each steered by the method towards the option it was assigned.

Images that need no steering, where that was asked, are the originals. With method.tries more images are steered than
have to change, and those that the labeler sees turned and that changed least are taken.
"""

import logging
import statistics
from collections import Counter
from dataclasses import asdict

from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, evaluation_jobs
from icm_pipeline.images.making import take_over
from icm_pipeline.images.sheet import draw_sheet
from icm_pipeline.images.table import IMAGES, SAMPLES, SHOWN, TRIED, TURNED, YES, write_table
from icm_pipeline.methods.assignment import assign_options, shares_of_jobs
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.registry import method_named
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.assigned import Assigned, read_assigned
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.steering import Steering
from icm_pipeline.results.tuning import Tuning
from icm_pipeline.stages.image_sets import evaluation_set_work, make_images, planned, store
from icm_pipeline.stages.tries import taken_of, tried_of
from icm_pipeline.stages.ways import strengthened
from icm_pipeline.store.shards import WHOLE

WHOLE_MODEL = Selection([], rule="all", kind="mixed", ranking=[])  # of a method that acts wherever it likes
log = logging.getLogger(__name__)
work = evaluation_set_work


def run(context: StageContext) -> None:
    settings, method = strengthened(context.settings, context.parents), method_named(context.settings.method.name)
    selection = Selection.read(context.parents["select"]) if "select" in method.needs else WHOLE_MODEL
    layers = selection.layers if method.in_layers else []
    jobs, names = evaluation_jobs(settings), list(settings.attribute.options)
    if method.whole_prompts:
        jobs = sorted(jobs, key=lambda job: job.prompt_index)
    assigned, tried = dict[str, Assigned](), dict.fromkeys((job.image_id for job in jobs), "")
    if method.draws(settings):
        assigned = _assigned(context, jobs)
        tried = tried_of(settings, jobs, assigned)
    steered = [job for job in jobs if job.image_id in tried]
    options = [tried[job.image_id] for job in steered]
    tuned = Tuning.read(context.parents["tune"]).options if "tune" in context.parents else {}
    alphas = {option: found.alpha for option, found in tuned.items()} or None
    alpha = statistics.mean(alphas.values()) if alphas else settings.alpha if "alpha" in method.reads else 0.0
    how = _steering(settings, alpha, alphas, selection, layers)
    log.info(
        "steer: %s: %s: %s%s", method.name, ", ".join(method.words(how)), dict(Counter(filter(None, options))),
        f", {len(jobs) - len(steered)} of {len(jobs)} stay as they are" if len(steered) < len(jobs) else "",
    )  # fmt: skip
    option_of = {job.image_id: names.index(option) for job, option in zip(steered, options, strict=True) if option}
    inputs = MethodInputs(settings, context.parents, layers, option_of, tuned)
    size = method.batch_size(settings, settings.evaluate.images_per_prompt)
    if size > settings.compute.batch_size:
        lower = "; method.params.group limits them" if "group" in method.params else ""
        log.warning(
            "steer: %s makes %d images of a prompt in one batch, whatever compute.batch_size=%d is%s",
            method.name, size, settings.compute.batch_size, lower,
        )  # fmt: skip
    images = planned(context, steered, options, size)
    if context.share == WHOLE:
        _leave(context, [job for job in jobs if job.image_id not in tried])
    if store(images, make_images(context, method, inputs, images), "steer"):
        if settings.method.tries > 1 and steered:
            assigned |= taken_of(context, steered, assigned, tried)
            _leave(context, [job for job in steered if not assigned[job.image_id].is_steered])
            draw_sheet(context.folder / SAMPLES, context.folder / IMAGES)
        if "assign" in context.parents:
            both = [assigned[job.image_id] for job in jobs]
            more = {SHOWN: [image.shown for image in both]}
            if settings.method.tries > 1:
                more |= {TRIED: [image.tried for image in both]}
                more |= {TURNED: [YES if image.has_turned else "" for image in both]}
            write_table(context.folder, jobs, [image.option for image in both], more)
        method.keep(inputs, context.folder)
        how.write(context.folder)


def _steering(
    settings: Settings, alpha: float, alphas: dict[str, float] | None, selection: Selection, layers: list[str]
) -> Steering:
    """Return how images are steered: the method's settings as they are told of, alpha, and where."""
    how = asdict(settings.method)
    how["shares_by_prompt"] = how["shares_by_prompt"] or None
    told = {"method": how.pop("name"), "params": how.pop("params") or None, "alpha": alpha, "tuned": alphas}
    for name in ("wanted_share", "strength", "strengths", "shares_table"):
        del how[name]
    return Steering(**how, **told, layers=layers, rule=selection.rule, kind=selection.kind)


def _leave(context: StageContext, jobs: list[Job]) -> None:
    """Let images be the originals."""
    if jobs:
        take_over(context.parents["originals"], [job.image_id for job in jobs], context.folder)


def _assigned(context: StageContext, jobs: list[Job]) -> dict[str, Assigned]:
    """Return what becomes of each image, by its id."""
    if "assign" in context.parents:
        return read_assigned(context.parents["assign"])
    settings, names = context.settings, list(context.settings.attribute.options)
    method, prompts = settings.method, [job.prompt_index for job in jobs]
    options = assign_options(
        prompts, shares_of_jobs(settings, jobs), method.assignment, method.draw_size, settings.seed
    )
    return {job.image_id: Assigned(names[option], shown="") for job, option in zip(jobs, options, strict=True)}
