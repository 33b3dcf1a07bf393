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
from icm_pipeline.generation.sampling import batches, decode, denoise
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
    """How long batches took of which this job made the same images in every way, one way after the other."""

    seconds: dict[str, dict[tuple[str, ...], float]] = field(default_factory=dict)
    """{way: {ids of a batch's twins: seconds an image}}"""

    def add(self, way: str, jobs: Sequence[Job], seconds: float) -> None:
        self.seconds.setdefault(way, {})[_twins(jobs)] = seconds / len(jobs)

    def pairs(self, one: str, other: str) -> list[tuple[float, float]]:
        """Return the seconds an image of every batch that was made in both ways."""
        first, second = self.seconds.get(one, {}), self.seconds.get(other, {})
        return [(first[twins], second[twins]) for twins in first if twins in second]


def strengthened(settings: Settings, parents: Mapping[str, Artifact]) -> Settings:
    """Return settings with the strength that stage=strength chose; as they are if it did not."""
    if "strength" not in parents:
        return settings
    return with_strength(settings, StrengthChoice.read(parents["strength"]).value)


def by_prompt(method: Method, jobs: list[Job]) -> list[Job]:
    """Return jobs in the order in which a method needs them."""
    return sorted(jobs, key=lambda job: job.prompt_index) if method.whole_prompts else jobs


def make_ways(
    context: StageContext, title: str, jobs: list[Job], ways: Sequence[Way], paced: bool = False
) -> Pace | None:
    """Make all ways' images that are not there; None if the set is not complete, as other jobs have shares of it.

    paced: take turns batch by batch, so that times can be compared, and begin with a batch of each that counts for
    none. Batches hold the same jobs either way.
    """
    size = _size(context.settings, jobs)
    turns = list(_turns(ways, jobs, size)) if paced else [(way, jobs) for way in ways]
    every = [replace(job, image_id=f"{way.name}-{job.image_id}") for way, batch in turns for job in batch]
    steered = {way.name: dict(zip((job.image_id for job in jobs), way.options, strict=False)) for way in ways}
    options = [steered[way.name].get(job.image_id, "") for way, batch in turns for job in batch]
    unit = size * len(ways) if paced else len(jobs)  # shards end where ways do, or where all had their turn
    images, pace = planned(context, every, options, unit), Pace()
    return pace if store(images, _made(context, ways, images, size, pace, paced), title) else None


def _size(settings: Settings, jobs: Sequence[Job]) -> int:
    """Return how many images a batch has; it does not grow, so that ways are compared in batches of one size."""
    num_prompts = len({job.prompt_index for job in jobs})
    return method_named(settings.method.name).batch_size(settings, len(jobs) // num_prompts)


def _turns(ways: Sequence[Way], jobs: list[Job], size: int) -> Iterator[tuple[Way, list[Job]]]:
    """Yield every batch in every way, each way first in turn: the first encodes the prompts."""
    for number, batch in enumerate(batches(jobs, size)):
        first = number % len(ways)
        yield from ((way, batch) for way in (*ways[first:], *ways[:first]))


def _made(
    context: StageContext, ways: Sequence[Way], images: ImageSet, size: int, pace: Pace, paced: bool
) -> Iterator[Batch]:
    """Yield the missing images batch by batch, each of one way; the model is loaded for the first."""
    settings, method = context.settings, method_named(context.settings.method.name)
    backbone = context.models.load(settings.model, settings.compute)
    method.check_family(backbone.family, backbone.name)
    given = {way.name: _inputs(context, method, way, images) for way in ways}

    def made(way: str, jobs: list[Job]) -> Batch:
        if way == UNSTEERED:
            return Batch(jobs, decode(backbone, jobs, denoise(backbone, jobs)))
        return changed(backbone, method, given[way], jobs)

    def make(jobs: list[Job]) -> Batch:
        check_whole(method, jobs, size)
        if paced and not pace.seconds:
            for way in given:  # what only the first batch of a process takes
                made(way, [replace(job, image_id=f"{way}-{arm_of(job.image_id)[1]}") for job in jobs])
        way, started = _way(jobs[0]), time.perf_counter()
        batch = made(way, jobs)
        pace.add(way, jobs, time.perf_counter() - started)
        return batch

    runs = (list(run) for jobs in images.missing for _, run in groupby(jobs, _way))
    yield from fitting(runs, make, size)


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


def _twins(jobs: Sequence[Job]) -> tuple[str, ...]:
    return tuple(arm_of(job.image_id)[1] for job in jobs)
