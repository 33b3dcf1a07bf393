"""Which jobs of a sweep are shown side by side, with which images: the same prompts and seeds in all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from icm_pipeline.images.table import ImageRow, read_table
from icm_pipeline.report.figures.sweep import is_line, sweep_axes, sweep_series
from icm_pipeline.report.wording import AXIS_NAMES, phrase
from icm_pipeline.results.sweeps import Sweep, SweepJob

MOST_COLUMNS = 10  # of a strip
MOST_ROWS = 24

Columns = list[tuple[str, list[ImageRow]]]
"""Headings and image rows: the originals, then jobs, the same ids in the same order."""


@dataclass(frozen=True)
class SameSeeds:
    """Jobs with the same originals that differ in one number, or where none does, in several things."""

    axis: str
    """The factor that is the number; empty if there is none."""
    series: dict[str, list[SweepJob]]
    """The jobs by what they share, in words, in the order of that factor."""

    @property
    def title(self) -> str:
        named = AXIS_NAMES.get(self.axis, self.axis)
        return f"The same seeds over {named}" if self.axis else "The same seeds, steered in several ways"

    def heading(self, name: str) -> str:
        """Return the heading of a series."""
        return f"{self.title} ({name})" if name else self.title

    def columns(self, sweep: Sweep, name: str) -> Columns:
        """Return what a strip of a series shows, of one image per prompt and option."""
        return _columns(self.series[name], [self.axis] if self.axis else sweep.telling())


def same_seeds(sweep: Sweep) -> SameSeeds:
    """Return the series over alpha, else over another number that was varied alone, else over the jobs themselves."""
    axes = sorted(sweep_axes(sweep), key=lambda axis: axis != "alpha")
    for axis in axes:
        lines = {name: jobs for name, jobs in sweep_series(sweep, axis).items() if is_line(jobs, axis)}
        series = {name: _with_images(jobs) for name, jobs in lines.items()}
        drawn = {name: jobs for name, jobs in series.items() if len(jobs) > 1 and (name or len(axes) == 1)}
        if drawn:
            return SameSeeds(axis, drawn)
    return SameSeeds("", _by_originals(sweep))


def _with_images(jobs: Sequence[SweepJob]) -> list[SweepJob]:
    """Return the jobs whose images are there, those only that share the first one's originals."""
    there = [(job, job.originals.key) for job in jobs if job.steered is not None and job.originals is not None]
    return [job for job, key in there if key == there[0][1]]


def _by_originals(sweep: Sweep) -> dict[str, list[SweepJob]]:
    """Return the jobs by model and attribute; of more than fit into a strip, those on the front, by FD."""
    shared, few = [name for name in sweep.varied() if name in ("model", "attribute")], len(sweep.jobs) < MOST_COLUMNS
    groups: dict[str, list[SweepJob]] = {}
    for job in sweep.jobs if few else compress(sweep.jobs, sweep.front()):
        groups.setdefault(phrase(job.factors, shared), []).append(job)
    shown = {name: _with_images(jobs if few else sorted(jobs, key=lambda job: job.fd)) for name, jobs in groups.items()}
    return {name: jobs for name, jobs in shown.items() if len(jobs) > 1}


def _columns(jobs: list[SweepJob], varied: list[str]) -> Columns:
    """Return headings and image rows: the originals, then at most ten jobs, of one image per prompt and option."""
    shown = jobs[:: -(-len(jobs) // MOST_COLUMNS)]
    sets = [shown[0].originals, *(job.steered for job in shown)]
    tables = [{row.image_id: row for row in read_table(images)} for images in sets if images is not None]
    first: dict[tuple[str, str], str] = {}
    for image_id, row in tables[-1].items():
        if all(image_id in table for table in tables):
            first.setdefault((row.prompt, row.option), image_id)
    prompts = list(dict.fromkeys(prompt for prompt, _ in first))
    ids = [first[pair] for pair in sorted(first, key=lambda pair: prompts.index(pair[0]))]
    if len(ids) > MOST_ROWS:  # spread over all prompts and options
        ids = [ids[round(place * (len(ids) - 1) / (MOST_ROWS - 1))] for place in range(MOST_ROWS)]
    headings = ["original", *(phrase(job.factors, varied) for job in shown)]
    return [(name, [table[image_id] for image_id in ids]) for name, table in zip(headings, tables, strict=True)]
