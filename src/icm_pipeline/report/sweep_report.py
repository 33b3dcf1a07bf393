"""Draw what a sweep found and write its page, beside the sweep's jobs."""

import logging
import shutil
from pathlib import Path

from icm_pipeline.images.table import ImageRow, read_table
from icm_pipeline.report.figures.sweep import (
    is_line,
    plot_against,
    plot_front,
    plot_overview,
    plot_strips,
    sweep_axes,
    sweep_series,
)
from icm_pipeline.report.sweep_page import write_sweep_page, write_sweep_table
from icm_pipeline.report.wording import AXIS_NAMES, phrase
from icm_pipeline.results.sweeps import Sweep, SweepJob
from icm_pipeline.store.files import replace_folder

FOLDER = "report"
PAGE = "sweep.md"
MOST_COLUMNS = 10  # of a strip
MOST_STRIPS = 4
log = logging.getLogger(__name__)


def report_sweep(sweep: Sweep) -> Path:
    """Write the sweep's report into `report` below its folder, in place of an earlier one; return that folder.

    The table as `sweep.csv`, the page as `sweep.md`, figures as PNG.
    """
    folder = sweep.folder / FOLDER
    partial = sweep.folder / f"{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    figures = {
        "Every job": plot_overview(partial / "overview.png", sweep),
        "Pareto front": plot_front(partial / "front.png", sweep),
    }
    for axis in sweep_axes(sweep):
        name = AXIS_NAMES.get(axis, axis)
        if sweep_series(sweep, axis):
            path = partial / f"against_{_file_name(axis)}.png"
            figures[f"FD and CLIP-I against {name}"] = plot_against(path, sweep, axis)
    figures |= _strips(partial, sweep)
    write_sweep_table(partial / "sweep.csv", sweep)
    write_sweep_page(partial / PAGE, sweep, figures)
    replace_folder(partial, folder)
    return folder


def _strips(folder: Path, sweep: Sweep) -> dict[str, Path]:
    """Draw the same seeds over alpha, else over another number that was varied alone, else over the jobs themselves."""
    axes = sorted(sweep_axes(sweep), key=lambda axis: axis != "alpha")
    for axis in axes:
        series = {name: _with_images(jobs) for name, jobs in sweep_series(sweep, axis).items() if is_line(jobs, axis)}
        drawn = {name: jobs for name, jobs in series.items() if len(jobs) > 1 and (name or len(axes) == 1)}
        if drawn:
            break
    else:
        axis, drawn = "", _by_originals(sweep)
    figures = {}
    for number, (name, jobs) in enumerate(list(drawn.items())[:MOST_STRIPS]):
        title = (
            f"The same seeds over {AXIS_NAMES.get(axis, axis)}" if axis else "The same seeds, steered in several ways"
        )
        title = f"{title} ({name})" if name else title
        path = folder / (f"strips_{number}.png" if len(drawn) > 1 else "strips.png")
        figures[title] = plot_strips(path, _columns(jobs, [axis] if axis else sweep.varied()), title)
    if len(drawn) > MOST_STRIPS:
        log.info("strips: drawn for %d of %d series", MOST_STRIPS, len(drawn))
    return figures


def _with_images(jobs: list[SweepJob]) -> list[SweepJob]:
    """Return the jobs whose images are there, those only that share the first one's originals."""
    there = [(job, job.originals.key) for job in jobs if job.steered is not None and job.originals is not None]
    return [job for job, key in there if key == there[0][1]]


def _by_originals(sweep: Sweep) -> dict[str, list[SweepJob]]:
    """Return the jobs by model and attribute; of more than fit into a strip, those on the front, by FD."""
    shared = [name for name in sweep.varied() if name in ("model", "attribute")]
    groups: dict[str, list[SweepJob]] = {}
    few = len(sweep.jobs) < MOST_COLUMNS
    for job, best in zip(sweep.jobs, sweep.front(), strict=True):
        if few or best:
            groups.setdefault(phrase(job.factors, shared), []).append(job)
    if not few:
        groups = {name: sorted(jobs, key=lambda job: job.fd) for name, jobs in groups.items()}
    groups = {name: _with_images(jobs) for name, jobs in groups.items()}
    return {name: jobs for name, jobs in groups.items() if len(jobs) > 1}


def _columns(jobs: list[SweepJob], varied: list[str]) -> list[tuple[str, list[ImageRow]]]:
    """Return headings and image rows: the originals, then at most ten jobs, of one image per prompt and option."""
    step = -(-len(jobs) // MOST_COLUMNS)
    shown = jobs[::step]
    assert shown[0].originals is not None
    tables = [{row.image_id: row for row in read_table(job.steered)} for job in shown if job.steered is not None]
    first: dict[tuple[str, str], str] = {}
    for image_id, row in tables[-1].items():
        if all(image_id in table for table in tables):
            first.setdefault((row.prompt, row.option), image_id)
    prompts = list(dict.fromkeys(prompt for prompt, _ in first))
    ids = [first[pair] for pair in sorted(first, key=lambda pair: prompts.index(pair[0]))]
    originals = {row.image_id: row for row in read_table(shown[0].originals)}
    headings = [phrase(job.factors, varied) for job in shown]
    return [
        ("original", [originals[image_id] for image_id in ids]),
        *((heading, [table[image_id] for image_id in ids]) for heading, table in zip(headings, tables, strict=True)),
    ]


def _file_name(axis: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in axis)
