"""Search how far to push: for each option the smallest alpha that turns a wanted share of the images that must change.

Images of probe prompts, with seeds that nothing else uses, are made unsteered; those that do not show an option are
made again, steered towards it, at alphas that a bisection chooses. The labeler says what they show. Every batch's
answers are kept, so that a search that was stopped goes on: what it asks for next follows from the answers so far.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job, tuning_jobs
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.labelers.base import Labeler
from icm_pipeline.labelers.registry import load_labeler
from icm_pipeline.methods.base import Method, MethodInputs
from icm_pipeline.methods.registry import method_named
from icm_pipeline.methods.tuning import Budget, Tuned, budget_for, smallest_alpha
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload, passes_per_run
from icm_pipeline.progress import Work, working
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.tuning import Tuning
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.files import written_whole
from icm_pipeline.store.shards import Shard, num_kept, shard_at
from icm_pipeline.tracking.base import Tracker

AT_ONCE = 8  # steered images between two looks at whether an alpha is decided
LABELS = "labels"  # of a shard: [images], the index of the option that each shows, -1 for none
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Answers:
    """What the trial images showed, kept batch by batch in the order in which the search asks."""

    folder: Path
    asked: list[str] = field(default_factory=list)
    """Every image so far, with the option and alpha that it was steered by."""

    def ask(self, images: Sequence[str]) -> list[int]:
        """Return the answers that an earlier job left, of some or all of the images, from the first on."""
        found, start = list[int](), len(self.asked)
        self.asked.extend(images)
        while (shard := shard_at(self.folder, start + len(found), self.asked)) is not None:
            found += load_file(shard.tensors)[LABELS].tolist()
        return found

    def keep(self, labels: Sequence[int], num_left: int) -> None:
        """Keep the answers of a batch, after which so many of the images that were asked about are left."""
        stop = len(self.asked) - num_left
        shard = Shard(self.folder, stop - len(labels), stop)
        with written_whole(shard.tensors) as partial:
            save_file({LABELS: np.array(labels)}, partial)
        shard.keep(self.asked, [shard.tensors], {})


@dataclass(frozen=True)
class _Trials:
    """Makes images and says what they show."""

    backbone: Backbone
    labeler: Labeler
    method: Method
    inputs: MethodInputs
    """Of which option_of and tuned are those below: set anew for each trial, so that what was read stays read."""
    option_of: dict[str, int]
    tuned: dict[str, Tuned]
    answers: _Answers
    work: Work

    def labels(self, jobs: Sequence[Job], option: str | None = None, alpha: float = 0.0) -> list[int]:
        """Return the index of the option that each image shows, -1 for none, unsteered or steered to an option."""
        settings, backbone, inputs = self.inputs.settings, self.backbone, self.inputs
        question = {settings.attribute.name: settings.attribute.options}
        names = list(settings.attribute.options)
        found = self.answers.ask([f"{job.image_id} {option or 'unsteered'} {alpha!r}" for job in jobs])
        if option is not None:
            self.option_of.update((job.image_id, names.index(option)) for job in jobs)
            self.tuned.update((name, Tuned(alpha)) for name in names)

        def make(batch: list[Job]) -> Batch:
            if option is None:
                return Batch(batch, decode(backbone, batch, denoise(backbone, batch)))
            generated = [replace(job, prompt=self.method.prompt_of(job, inputs)) for job in batch]
            with self.method.applied(backbone, inputs, batch):
                latents = denoise(backbone, generated)
            return Batch(batch, decode(backbone, batch, latents))

        for made in fitting([list(jobs[len(found) :])], make, settings.compute.batch_size):
            answers = self.labeler.label([sample.image for sample in made.samples], question)
            labels: list[int] = hard_labels(answers[settings.attribute.name]).tolist()
            found += labels
            self.answers.keep(labels, len(jobs) - len(found))
            self.work.advance(len(made.jobs), note="" if option is None else f"{option} {alpha:.3g}")
        return found


def run(context: StageContext) -> None:
    settings, method = context.settings, method_named(context.settings.method.name)
    names, wanted, start = list(settings.attribute.options), settings.method.wanted_share, settings.model.steering.alpha
    layers = Selection.read(context.parents["select"]).layers if method.in_layers else []
    backbone = context.models.load(settings.model, settings.compute)
    method.check_family(backbone.family, backbone.name)
    option_of, alphas = dict[str, int](), dict[str, Tuned]()
    budget, inputs = budget_for(len(names)), MethodInputs(settings, context.parents, layers, option_of, alphas)
    answers, num_there = _Answers(context.folder), num_kept(context.folder)
    if num_there:
        log.info("tune: going on with the answers of %d images that an earlier job made", num_there)
    with working("tune", budget.most, "image", done=num_there) as work:
        trials = _Trials(backbone, load_labeler(settings.labeler), method, inputs, option_of, alphas, answers, work)
        jobs = tuning_jobs(settings, budget.num_unsteered)
        shown = np.array(trials.labels(jobs))
        tuned = {
            name: _tune(trials, [job for job, label in zip(jobs, shown, strict=True) if label not in (-1, index)],
                        name, start, wanted, budget)
            for index, name in enumerate(names)
        }  # fmt: skip
    num_images = len(jobs) + sum(found.made for found in tuned.values())
    Tuning(wanted, settings.method.alpha_unit, num_images, tuned).write(context.folder)
    told = ", ".join(f"{name} {found.alpha:.3g} ({found.share:.0%})" for name, found in tuned.items())
    log.info("tune: %s, by %d images", told, num_images)


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    """At most; the search ends earlier where the answer is clear."""
    num_images = budget_for(len(settings.attribute.options)).most
    return Workload(num_images, passes=num_images * passes_per_run(settings.model.num_steps, settings.model.scheduler))


def show(tracker: Tracker, artifact: Artifact) -> None:
    tuning = Tuning.read(artifact)
    for name, found in tuning.options.items():
        tracker.metrics({f"tune/alpha/{name}": found.alpha, f"tune/share/{name}": found.share})
    tracker.metrics({"tune/num_images": tuning.num_images})
    rows = [[name, at.alpha, at.flips, at.images] for name, found in tuning.options.items() for at in found.curve]
    tracker.table("tune/curve", ["option", "alpha", "turned", "of"], rows)


def _tune(trials: _Trials, jobs: list[Job], option: str, start: float, wanted: float, budget: Budget) -> Tuned:
    """Search the alpha of an option; jobs: of images that show another one unsteered."""
    jobs = jobs[: budget.num_candidates]
    index = list(trials.inputs.settings.attribute.options).index(option)

    def flips(alpha: float, chosen: Sequence[int]) -> list[bool]:
        return [label == index for label in trials.labels([jobs[i] for i in chosen], option, alpha)]

    found = smallest_alpha(flips, len(jobs), start, wanted, budget.num_steered, AT_ONCE)
    if not jobs:
        log.warning("tune: every trial image shows %s unsteered; alpha=%g is the model's own.", option, start)
    elif not found.reached:
        log.warning(
            "tune: no alpha turns %.0f %% of %d images to %s; %.3g turns %.0f %%. Steer more layers (layers.k) or more "
            "steps, or ask for less (method.wanted_share).",
            100 * wanted, len(jobs), option, found.alpha, 100 * found.share,
        )  # fmt: skip
    return found
