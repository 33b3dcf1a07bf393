"""The page of a sweep: the front with the pictures of each point, a slider over the same seeds, tables, commands."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

from icm_pipeline.config.compose import as_value
from icm_pipeline.images.table import ImageRow, read_table
from icm_pipeline.report.bench_page import bench_tables, benches_of
from icm_pipeline.report.figures.sweep import drawn_axes, fate_in_words, is_line, sweep_series
from icm_pipeline.report.html.charts import LONGEST_LABEL, Axis, Chart, Spot, chart, staircase
from icm_pipeline.report.html.gallery import Gallery, Shown, one_of_each, spread
from icm_pipeline.report.html.page import Series, write_html
from icm_pipeline.report.html.thumbnails import Thumbnails
from icm_pipeline.report.provenance import provenance
from icm_pipeline.report.same_seeds import Columns, SameSeeds
from icm_pipeline.report.sweep_page import same_in_all, sweep_cautions, sweep_cells, sweep_title
from icm_pipeline.report.wording import AXIS_NAMES, phrase
from icm_pipeline.results.bench import is_bench
from icm_pipeline.results.images import IMAGES_TABLE, read_steered
from icm_pipeline.results.sweeps import Sweep, SweepJob
from icm_pipeline.text import number_text

MOST_PICTURES = 1200  # twins in the page, of all jobs
MOST_OF_A_JOB, LEAST_OF_A_JOB = 24, 4
STRIPS, STRIP_ROWS = 4, 8
FD, CLIP_I = "FD (lower is better)", "CLIP-I (higher is better)"


@dataclass(frozen=True)
class Cell:
    """A picture of a strip."""

    picture: str
    alt: str
    words: str


@dataclass(frozen=True)
class Against:
    """What a number that was varied did: charts of FD and CLIP-I, and the names of their lines."""

    name: str
    charts: list[Chart]
    legend: list[str]


def write_html_sweep(path: Path, sweep: Sweep, seeds: SameSeeds) -> Path:
    """Write the page of a sweep; seeds: its jobs to show side by side."""
    gallery = _gallery(sweep)
    there = {shown.name for shown in gallery.shown}
    best = min(sweep.jobs, key=lambda job: (job.name not in there, round(job.fd, 3), -job.clip_i))
    strips = [
        (seeds.heading(name), _strip(seeds.columns(sweep, name), gallery.pictures)) for name in [*seeds.series][:STRIPS]
    ]
    titles, cells = sweep_cells(sweep)
    made = sorted(best.artifacts.values(), key=lambda artifact: artifact.manifest.created)
    made_by = provenance(made)
    return write_html(
        path, "sweep.html.j2", gallery, None, _series(seeds, there), best.name,
        title=sweep_title(sweep), subtitle=f"{best.evaluation.attribute.replace('_', ' ')} on {best.evaluation.model}",
        front=_front(sweep), cautions=sweep_cautions(sweep),
        against=[_against(sweep, axis) for axis in drawn_axes(sweep)], strips=strips, same=same_in_all(sweep),
        titles=titles, cells=cells, left_out=sweep.left_out,
        tables=[table for bench in benches_of(sweep) for table in bench_tables(bench)] if is_bench(sweep) else (),
        commands=_commands(sweep),
        best=best.name, provenance=made_by,
    )  # fmt: skip


def _gallery(sweep: Sweep) -> Gallery:
    """Return the pictures of the jobs that have some; of very many, of those on the front and of some others."""
    jobs = [job for job in sweep.jobs if job.steered is not None and job.originals is not None]
    best = {job.name for job in compress(sweep.jobs, sweep.front())}
    most = MOST_PICTURES // LEAST_OF_A_JOB
    if len(jobs) > most:
        first = [job for job in jobs if job.name in best][:most]
        others = spread([job for job in jobs if job.name not in best], most - len(first))
        jobs = [job for job in jobs if job in (*first, *others)]
    each = min(MOST_OF_A_JOB, MOST_PICTURES // max(1, len(jobs)))
    gallery, sets = Gallery(), dict[str, int]()
    for job in jobs:
        assert job.steered is not None and job.originals is not None
        steered = {row.image_id: row for row in read_table(job.steered)}
        if job.originals.key not in sets:
            ids = {row.image_id for row in one_of_each(list(steered.values()), each)}
            rows = [row for row in read_table(job.originals) if row.image_id in ids]
            sets[job.originals.key] = gallery.add_originals(rows)
        evaluated, number = job.artifacts.get("evaluate"), sets[job.originals.key]
        judged = read_steered(evaluated) if evaluated and IMAGES_TABLE in evaluated.manifest.files else {}
        twins = gallery.twins_of(number, steered, judged)
        gallery.shown.append(Shown(job.name, _titled(sweep, job), _figures(job), number, twins))
    return gallery


def _titled(sweep: Sweep, job: SweepJob) -> str:
    words = phrase(job.factors, sweep.telling())
    return f"Job {job.name}: {words}" if words else f"Job {job.name}"


def _figures(job: SweepJob) -> str:
    low, high = job.evaluation.after.interval_95
    obeyed = number_text(job.evaluation.obeyed, ".0%")
    return (
        f"FD {job.evaluation.before.mean:.3f} \N{RIGHTWARDS ARROW} {job.fd:.3f} (95 %: {low:.3f} to {high:.3f}), "
        f"CLIP-I {job.clip_i:.3f}, obeyed {obeyed}"
    )


def _series(seeds: SameSeeds, there: set[str]) -> list[Series]:
    """Return what the slider goes along: series of a number, of jobs whose pictures are in the page."""
    if not seeds.axis:
        return []
    shown = {name: [job for job in jobs if job.name in there] for name, jobs in seeds.series.items()}
    return [
        Series(name, AXIS_NAMES.get(seeds.axis, seeds.axis), [f"{job.factors[seeds.axis]:g}" for job in jobs],
               [job.name for job in jobs])
        for name, jobs in shown.items() if len(jobs) > 1
    ]  # fmt: skip


def _spot(sweep: Sweep, job: SweepJob, x: float, y: float, is_best: bool) -> Spot:
    words = phrase(job.factors, sweep.telling())
    label = words if 0 < len(words) <= LONGEST_LABEL else job.name
    tip = f"{_titled(sweep, job)}. {_figures(job)}"
    return Spot(job.name, label, tip, x, y, job.evaluation.after.interval_95, is_best)


def _front(sweep: Sweep) -> Chart:
    rows = list(zip(sweep.jobs, sweep.front(), strict=True))
    original = _original(sweep)
    spots = [_spot(sweep, job, job.fd, job.clip_i, best) for job, best in rows]
    highest = [job.evaluation.after.interval_95[1] for job, best in rows if best]
    shown = [*(job.fd for job in sweep.jobs), *highest, *([] if original is None else [original])]
    x = Axis.around("FD, mean over prompts (lower is better)", shown, zero=True)
    y = Axis.around(CLIP_I, [job.clip_i for job in sweep.jobs])
    subjects = dict.fromkeys(job.subject for job in sweep.jobs)
    members = {each: [(job.fd, job.clip_i) for job, best in rows if best and job.subject == each] for each in subjects}
    lines = [(0, staircase(points)) for points in members.values()]
    return chart("Pareto front of FD and CLIP-I", x, y, spots, lines, original=original)


def _against(sweep: Sweep, axis: str) -> Against:
    named, series = AXIS_NAMES.get(axis, axis), sweep_series(sweep, axis)
    highest = [max(job.fd, job.evaluation.after.interval_95[1]) for job in sweep.jobs]
    y = Axis.around(FD, highest, zero=True), Axis.around(CLIP_I, [job.clip_i for job in sweep.jobs])
    x = Axis.around(named, [job.factors[axis] for job in sweep.jobs])
    fd, clip_i = _points(sweep, axis, lambda job: job.fd), _points(sweep, axis, lambda job: job.clip_i)
    plain = [replace(spot, interval=None) for spot in clip_i[0]]
    charts = [
        chart(f"FD against {named}", x, y[0], *fd, upright=True, original=_original(sweep)),
        chart(f"CLIP-I against {named}", x, y[1], plain, clip_i[1], upright=True),
    ]
    return Against(named, charts, list(series) if len(series) > 1 else [])


def _points(
    sweep: Sweep, axis: str, value: Callable[[SweepJob], float]
) -> tuple[list[Spot], list[tuple[int, list[tuple[float, float]]]]]:
    """Return a figure of every job along an axis, without labels, and a line for all that share the rest."""
    series, front = sweep_series(sweep, axis), {job.name for job in compress(sweep.jobs, sweep.front())}
    is_searched = list(series) == [""] and len(sweep.varied()) > 1
    spots, lines = [], []
    for number, jobs in enumerate(series.values()):
        places = [(float(job.factors[axis]), value(job)) for job in jobs]
        found = [_spot(sweep, job, *place, job.name in front) for job, place in zip(jobs, places, strict=True)]
        spots += [replace(spot, label="", series=number) for spot in found]
        lines += [(number, places)] if is_line(jobs, axis) and not is_searched else []
    return spots, lines


def _original(sweep: Sweep) -> float | None:
    """Return FD of the unsteered images, where all jobs share them."""
    values = {round(job.evaluation.before.mean, 6) for job in sweep.jobs}
    return values.pop() if len(values) == 1 else None


def _strip(columns: Columns, pictures: Thumbnails) -> list[tuple[str, list[Cell]]]:
    rows = spread(range(len(columns[0][1])), STRIP_ROWS)
    last = columns[-1][1]
    words = [f"{last[row].prompt} {fate_in_words(last[row])}" for row in rows]
    return [(name, [_cell(cells[row], told, pictures) for row, told in zip(rows, words, strict=True)])
            for name, cells in columns]  # fmt: skip


def _cell(row: ImageRow, words: str, pictures: Thumbnails) -> Cell:
    return Cell(pictures.add(row.path), f"{row.prompt} {fate_in_words(row)}".strip(), words)


def _commands(sweep: Sweep) -> list[tuple[str, str]]:
    begin = ["python", "-m", "icm_pipeline"]
    folder = sweep.folder.relative_to(Path.cwd()) if sweep.folder.is_relative_to(Path.cwd()) else sweep.folder
    jobs = [shlex.join([*begin, *job.overrides]) for job in sweep.jobs]
    return [
        ("this report", shlex.join([*begin, "stage=report", f"sweep={as_value(folder)}"])),
        ("each job, with what is there already reused", "\n".join(jobs)),
    ]
