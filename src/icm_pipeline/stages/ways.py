"""The same jobs made again and again, unsteered and by one method under other settings each time, as one set of images.

An image's id is its way's name, a dash and the id of its twin, as that of an arm (stages/arms.py).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.images.making import ImageSet
from icm_pipeline.methods.base import Method, MethodInputs
from icm_pipeline.methods.registry import method_named
from icm_pipeline.methods.strength import with_strength
from icm_pipeline.methods.tuning import Tuned
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.bench import StrengthChoice
from icm_pipeline.results.effects import UNSTEERED, arm_of
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.tuning import Tuning
from icm_pipeline.stages.image_sets import changed, check_whole, planned, store
from icm_pipeline.store.artifacts import Artifact


@dataclass(frozen=True)
class Way:
    """One way to make the jobs' images."""

    name: str
    settings: Settings
    options: Sequence[str] = ()
    """What each job's image is steered to, in the jobs' order; none where no option is drawn."""


@dataclass(frozen=True)
class Pace:
    """How long the images of each way took, as far as this job made them."""

    seconds: dict[str, float] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)

    def add(self, way: str, seconds: float, num_images: int) -> None:
        self.seconds[way] = self.seconds.get(way, 0.0) + seconds
        self.images[way] = self.images.get(way, 0) + num_images

    def of(self, way: str) -> float | None:
        """Return the seconds an image of a way took; None if an earlier job made them all."""
        return self.seconds[way] / self.images[way] if way in self.images else None


def strengthened(settings: Settings, parents: Mapping[str, Artifact]) -> Settings:
    """Return settings with the strength that stage=strength chose; as they are if it did not."""
    if "strength" not in parents:
        return settings
    return with_strength(settings, StrengthChoice.read(parents["strength"]).value)


def by_prompt(method: Method, jobs: list[Job]) -> list[Job]:
    """Return jobs in the order in which a method needs them."""
    return sorted(jobs, key=lambda job: job.prompt_index) if method.whole_prompts else jobs


def make_ways(context: StageContext, title: str, jobs: list[Job], ways: Sequence[Way]) -> Pace | None:
    """Make all ways' images that are not there; None if the set is not complete, as other jobs have shares of it."""
    every = [replace(job, image_id=f"{way.name}-{job.image_id}") for way in ways for job in jobs]
    options = [option for way in ways for option in way.options or [""] * len(jobs)]
    images, pace = planned(context, every, options, len(jobs)), Pace()  # shards end where ways do
    return pace if store(images, _made(context, ways, images, pace), title) else None


def _made(context: StageContext, ways: Sequence[Way], images: ImageSet, pace: Pace) -> Iterator[Batch]:
    """Yield the missing images batch by batch, each of one way; the model is loaded for the first."""
    settings, method = context.settings, method_named(context.settings.method.name)
    prompts = {job.prompt_index for job in images.jobs}
    size = len(images.jobs) // (len(ways) * len(prompts)) if method.whole_prompts else settings.compute.batch_size
    backbone = context.models.load(settings.model, settings.compute)
    method.check_family(backbone.family, backbone.name)
    given = {way.name: _inputs(context, method, way, images) for way in ways}

    def make(jobs: list[Job]) -> Batch:
        check_whole(method, jobs, size)
        way, started = _way(jobs[0]), time.perf_counter()
        if way == UNSTEERED:
            made = Batch(jobs, decode(backbone, jobs, denoise(backbone, jobs)))
        else:
            made = changed(backbone, method, given[way], jobs)
        pace.add(way, time.perf_counter() - started, len(jobs))
        return made

    runs = (list(run) for jobs in images.missing for _, run in groupby(jobs, _way))
    yield from fitting(runs, make, size, settings.compute.grow_batch and not method.whole_prompts)


def _inputs(context: StageContext, method: Method, way: Way, images: ImageSet) -> MethodInputs:
    layers = Selection.read(context.parents["select"]).layers if method.in_layers else []
    names, tuned = list(way.settings.attribute.options), dict[str, Tuned]()
    if "tune" in context.parents:
        tuned = Tuning.read(context.parents["tune"]).options
    pairs = zip(images.jobs, images.options, strict=True)
    option_of: Mapping[str, int] = {
        job.image_id: names.index(option) for job, option in pairs if option and _way(job) == way.name
    }
    return MethodInputs(way.settings, context.parents, layers, option_of, tuned)


def _way(job: Job) -> str:
    return arm_of(job.image_id)[0]
