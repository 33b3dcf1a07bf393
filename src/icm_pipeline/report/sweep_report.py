"""Draw what a sweep found and write its page, beside the sweep's jobs."""

import logging
import re
import shutil
from itertools import compress
from pathlib import Path

from icm_pipeline.images.table import ImageRow, read_table
from icm_pipeline.report.bench_page import bench_rows, write_bench_page, write_bench_table
from icm_pipeline.report.figures import sweep as plots
from icm_pipeline.report.figures.bench import plot_fronts
from icm_pipeline.report.sweep_page import write_sweep_page, write_sweep_table
from icm_pipeline.report.wording import AXIS_NAMES, phrase
from icm_pipeline.results.bench import is_bench
from icm_pipeline.results.sweeps import Sweep, SweepJob
from icm_pipeline.store.files import replace_folder

FOLDER = "report"
PAGE = "sweep.md"
MOST_COLUMNS = 10  # of a strip
MOST_ROWS = 24
MOST_STRIPS = 4
log = logging.getLogger(__name__)


def report_sweep(sweep: Sweep) -> Path:
    """Write the sweep's report into `report` below its folder, in place of an earlier one; return that folder.

    The table as `sweep.csv`, the page as `sweep.md`, figures as PNG.
    """
    folder, partial = sweep.folder / FOLDER, sweep.folder / f"{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    figures = {
        "Every job": plots.plot_overview(partial / "overview.png", sweep),
        "Pareto front": plots.plot_front(partial / "front.png", sweep),
    }
    for axis in plots.sweep_axes(sweep):
        if plots.sweep_series(sweep, axis):
            path = (partial / re.sub(r"\W", "_", f"against_{axis}")).with_suffix(".png")
            figures[f"FD and CLIP-I against {AXIS_NAMES.get(axis, axis)}"] = plots.plot_against(path, sweep, axis)
    figures |= _strips(partial, sweep)
    write_sweep_table(partial / "sweep.csv", sweep)
    write_sweep_page(partial / PAGE, sweep, figures)
    if is_bench(sweep):
        _report_bench(partial, sweep)
    replace_folder(partial, folder)
    return folder


def _report_bench(folder: Path, sweep: Sweep) -> None:
    """Write what a sweep over methods came to, as `bench.csv`, `bench.md` and the figure of the fronts."""
    rows = bench_rows(sweep)
    choices = {row.name: row.choice for row in rows if row.choice is not None and row.choice.chosen.fd is not None}
    write_bench_table(folder / "bench.csv", rows)
    write_bench_page(
        folder / "bench.md", sweep, rows, plot_fronts(folder / "strengths.png", choices) if choices else None
    )


def _strips(folder: Path, sweep: Sweep) -> dict[str, Path]:
    """Draw the same seeds over alpha, else over another number that was varied alone, else over the jobs themselves."""
    axes = sorted(plots.sweep_axes(sweep), key=lambda axis: axis != "alpha")
    for axis in axes:
        lines = {name: jobs for name, jobs in plots.sweep_series(sweep, axis).items() if plots.is_line(jobs, axis)}
        series = {name: _with_images(jobs) for name, jobs in lines.items()}
        drawn = {name: jobs for name, jobs in series.items() if len(jobs) > 1 and (name or len(axes) == 1)}
        if drawn:
            break
    else:
        axis, drawn = "", _by_originals(sweep)
    figures = {}
    title = f"The same seeds over {AXIS_NAMES.get(axis, axis)}" if axis else "The same seeds, steered in several ways"
    for number, (name, jobs) in enumerate(list(drawn.items())[:MOST_STRIPS]):
        heading = f"{title} ({name})" if name else title
        path = folder / (f"strips_{number}.png" if len(drawn) > 1 else "strips.png")
        figures[heading] = plots.plot_strips(path, _columns(jobs, [axis] if axis else sweep.telling()), heading)
    if len(drawn) > MOST_STRIPS:
        log.info("strips: drawn for %d of %d series", MOST_STRIPS, len(drawn))
    return figures


def _with_images(jobs: list[SweepJob]) -> list[SweepJob]:
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


def _columns(jobs: list[SweepJob], varied: list[str]) -> list[tuple[str, list[ImageRow]]]:
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
