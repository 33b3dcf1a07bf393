"""Arms of an experiment as one set of images, pushed at another place in each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.prefixes import PrefixStore, shared_prefix
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.images.making import ImageSet
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.tuning import Tuned
from icm_pipeline.methods.vectors import SteeringVectors
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload, passes_per_run
from icm_pipeline.results.effects import PushedArm, Pushes, Sort, arm_of
from icm_pipeline.results.scores import Scores
from icm_pipeline.stages.image_sets import planned, store


@dataclass(frozen=True)
class Arm:
    """Images that are pushed in one way."""

    name: str
    sort: Sort
    jobs: list[Job]
    """With the ids of their twins."""
    options: Sequence[int] = ()
    """The index of each job's option; none where the images are unsteered."""
    vectors: SteeringVectors | None = None
    """Of the pushed layers and no others."""
    shares_prefix: bool = True
    """Whether the first steps of these jobs are shared with other arms."""
    window: Sequence[str] = ()
    """The layers that `applied` changes."""
    applied: Callable[[Backbone, list[Job]], AbstractContextManager[Any]] | None = None
    """The context in which a batch is denoised, in place of a push."""

    @property
    def layers(self) -> list[str]:
        """The changed layers; none where images are as the model makes them."""
        return self.vectors.layers if self.vectors else list(self.window)

    @property
    def own_jobs(self) -> list[Job]:
        """The jobs with ids that no other arm has."""
        return [replace(job, image_id=f"{self.name}-{job.image_id}") for job in self.jobs]

    @property
    def option_of(self) -> dict[str, int]:
        """The index of the option of each image; empty where they are unsteered."""
        return {job.image_id: option for job, option in zip(self.own_jobs, self.options or (), strict=False)}


def pushed_vectors(context: StageContext) -> SteeringVectors:
    """Return the probes' vectors of all layers, as the settings use them."""
    return MethodInputs(context.settings, context.parents, list(Scores.read(context.parents["probe"]).layers)).vectors


def make_arms(
    context: StageContext, title: str, arms: Sequence[Arm], tuned: Mapping[str, Tuned], prefixes: PrefixStore | None
) -> bool:
    """Make all arms' images that are not there; return whether the set is complete.

    tuned: the alpha of each option; none for that of the settings. Shards end where arms do, if these are equal.
    """
    names, option_of = list(context.settings.attribute.options), _options(arms)
    jobs = [job for arm in arms for job in arm.own_jobs]
    options = [names[option_of[job.image_id]] if job.image_id in option_of else "" for job in jobs]
    images = planned(context, jobs, options, len(arms[0].jobs))
    if not store(images, _made(context, arms, tuned, prefixes, images), title):
        return False
    Pushes({arm.name: PushedArm(arm.sort, arm.layers, len(arm.jobs)) for arm in arms}).write(context.folder)
    return True


def pushed_work(settings: Settings, num_images: int) -> Workload:
    """Return what making so many images of arms takes."""
    passes = num_images * passes_per_run(settings.model.num_steps, settings.model.scheduler)
    return Workload(num_images, num_images, passes)


def _options(arms: Sequence[Arm]) -> dict[str, int]:
    return {image_id: option for arm in arms for image_id, option in arm.option_of.items()}


def _made(
    context: StageContext,
    arms: Sequence[Arm],
    tuned: Mapping[str, Tuned],
    prefixes: PrefixStore | None,
    images: ImageSet,
) -> Iterator[Batch]:
    """Yield the missing images batch by batch, each of one arm; the model is loaded for the first."""
    settings, by_name, option_of = context.settings, {arm.name: arm for arm in arms}, _options(arms)
    backbone = context.models.load(settings.model, settings.compute)
    inputs = MethodInputs(settings, context.parents, option_of=option_of, tuned=tuned)

    def make(jobs: list[Job]) -> Batch:
        arm = by_name[_arm(jobs[0])]
        twins = [arm_of(job.image_id)[1] for job in jobs]
        with ExitStack() as hooks:
            if arm.applied is not None:
                hooks.enter_context(arm.applied(backbone, jobs))
            clock = hooks.enter_context(hooked(backbone, [], None, len(jobs)))
            if arm.vectors is not None:
                shift = Shift(arm.vectors, [option_of[job.image_id] for job in jobs], inputs.strength_of(jobs))
                hooks.enter_context(hooked(backbone, arm.vectors.layers, shift, len(jobs)))
            kept = prefixes if arm.shares_prefix else None
            hooks.enter_context(shared_prefix(backbone, clock, kept, twins, settings.method.first_step))
            latents = denoise(backbone, jobs)
        return Batch(jobs, decode(backbone, jobs, latents))

    runs = (list(run) for jobs in images.missing for _, run in groupby(jobs, _arm))
    yield from fitting(runs, make, settings.compute.batch_size, settings.compute.grow_batch)


def _arm(job: Job) -> str:
    return arm_of(job.image_id)[0]
