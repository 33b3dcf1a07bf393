"""Draw what a sweep found and write its pages, beside the sweep's jobs."""

import logging
import re
import shutil
from pathlib import Path

from icm_pipeline.report.bench_page import benches_of, write_bench_page, write_bench_table
from icm_pipeline.report.figures import sweep as plots
from icm_pipeline.report.figures.bench import plot_fronts
from icm_pipeline.report.html.sweep_page import write_html_sweep
from icm_pipeline.report.same_seeds import SameSeeds, same_seeds
from icm_pipeline.report.sweep_page import write_sweep_page, write_sweep_table
from icm_pipeline.report.wording import AXIS_NAMES
from icm_pipeline.results.bench import is_bench
from icm_pipeline.results.sweeps import Sweep
from icm_pipeline.store.files import replace_folder

FOLDER = "report"
PAGE, HTML_PAGE = "sweep.md", "report.html"
MOST_STRIPS = 4
log = logging.getLogger(__name__)


def report_sweep(sweep: Sweep) -> Path:
    """Write the sweep's report into `report` below its folder, in place of an earlier one; return that folder.

    The table as `sweep.csv`, the page as `sweep.md` and, with pictures to choose, `report.html`, figures as PNG.
    """
    folder, partial = sweep.folder / FOLDER, sweep.folder / f"{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    figures = {
        "Every job": plots.plot_overview(partial / "overview.png", sweep),
        "Pareto front": plots.plot_front(partial / "front.png", sweep),
    }
    for axis in plots.drawn_axes(sweep):
        path = (partial / re.sub(r"\W", "_", f"against_{axis}")).with_suffix(".png")
        figures[f"FD and CLIP-I against {AXIS_NAMES.get(axis, axis)}"] = plots.plot_against(path, sweep, axis)
    seeds = same_seeds(sweep)
    figures |= _strips(partial, sweep, seeds)
    write_sweep_table(partial / "sweep.csv", sweep)
    write_sweep_page(partial / PAGE, sweep, figures)
    write_html_sweep(partial / HTML_PAGE, sweep, seeds)
    if is_bench(sweep):
        _report_bench(partial, sweep)
    replace_folder(partial, folder)
    return folder


def _report_bench(folder: Path, sweep: Sweep) -> None:
    """Write what a sweep over methods came to, as `bench.csv`, `bench.md` and figures of the fronts."""
    benches = benches_of(sweep)
    names = ["strengths.png", *(f"strengths_{number}.png" for number in range(2, len(benches) + 1))]
    fronts = [
        plot_fronts(folder / name, bench.fronts) if bench.fronts else None
        for name, bench in zip(names, benches, strict=True)
    ]
    write_bench_table(folder / "bench.csv", benches)
    write_bench_page(folder / "bench.md", sweep, benches, fronts)


def _strips(folder: Path, sweep: Sweep, seeds: SameSeeds) -> dict[str, Path]:
    """Draw the same seeds side by side, a figure per series."""
    figures = {}
    for number, name in enumerate(list(seeds.series)[:MOST_STRIPS]):
        path = folder / (f"strips_{number}.png" if len(seeds.series) > 1 else "strips.png")
        heading = seeds.heading(name)
        figures[heading] = plots.plot_strips(path, seeds.columns(sweep, name), heading)
    if len(seeds.series) > MOST_STRIPS:
        log.info("strips: drawn for %d of %d series", MOST_STRIPS, len(seeds.series))
    return figures
