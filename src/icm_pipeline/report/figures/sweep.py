"""What a sweep found: FD and CLIP-I against what was varied, the Pareto front, and the same seeds side by side."""

from pathlib import Path
from typing import Any

import numpy as np

from icm_pipeline.images.sheet import fitted
from icm_pipeline.images.table import ImageRow, Pictures
from icm_pipeline.report.figures.comparison import FD_AND_CLIP_I
from icm_pipeline.report.figures.style import (
    QUIET_COLOR,
    STEERED_COLOR,
    figure,
    mark_original,
    place_labels,
    wrapped,
)
from icm_pipeline.report.wording import AXIS_NAMES, phrase
from icm_pipeline.results.sweeps import Sweep, SweepJob
from icm_pipeline.text import count_text

SERIES_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
MARKERS = "osD^vPX*"
MOST_BANDS = 4  # series whose intervals are drawn
MOST_LABELLED = 14  # points of the front's figure that all carry their name; of more, only the front does
LONGEST_LABEL = 22  # characters
LABEL_WIDTH, MOST_LABEL_LINES = 1.8, 2  # inches beside a point
NAME_WIDTH, MOST_NAME_LINES = 2.6, 4  # inches beside a job's row
MOST_ROWS = 40  # of the overview
STRIP_SIZE = 96  # pixels of a picture in a strip
ROW_NAME_WIDTH = 1.7  # inches of a prompt and option beside a strip's row
ARROW = "\N{RIGHTWARDS ARROW}"
HEADING: dict[str, Any] = {"x": 0.01, "ha": "left", "fontsize": 10, "fontweight": "bold"}


def sweep_axes(sweep: Sweep) -> list[str]:
    """Return the varied factors that are numbers in every job, which can be an x axis."""
    return [name for name in sweep.varied() if all(type(job.factors.get(name)) in (int, float) for job in sweep.jobs)]


def sweep_series(sweep: Sweep, axis: str) -> dict[str, list[SweepJob]]:
    """Return the jobs that differ in one factor only, in its order, by a name for what they share.

    Where a search drew the numbers, few jobs share anything: then all of them are one series without a name. Empty if
    the factor was varied along with something that is no number, so that there is nothing to draw against it.
    """
    others = [name for name in sweep.varied() if name != axis]
    ordered = sorted(sweep.jobs, key=lambda job: job.factors[axis])
    series: dict[str, list[SweepJob]] = {}
    for job in ordered:
        series.setdefault(phrase(job.factors, others), []).append(job)
    joined = sum(len(jobs) for jobs in series.values() if is_line(jobs, axis))
    if len(series) <= len(SERIES_COLORS) and 2 * joined >= len(sweep.jobs):
        return series
    return {"": ordered} if sweep_axes(sweep) == sweep.varied() else {}


def is_line(jobs: list[SweepJob], axis: str) -> bool:
    """Return whether the jobs of a series have at least two values on the axis."""
    return len({job.factors[axis] for job in jobs}) > 1


def drawn_axes(sweep: Sweep) -> list[str]:
    """Return the axes along which there is something to draw."""
    return [axis for axis in sweep_axes(sweep) if sweep_series(sweep, axis)]


def plot_against(path: Path, sweep: Sweep, axis: str) -> Path:
    """Draw FD (with 95 % intervals) and CLIP-I of every job against one factor, a line for all that share the rest."""
    series, axis_name = sweep_series(sweep, axis), AXIS_NAMES.get(axis, axis)
    named = {name: wrapped(name, 6.5, 7.5) for name in series if name}
    columns = max(1, min(3, len(named), int(115 / (8 + max(map(len, named.values()), default=0)))))  # of the legend
    rows = -(-sum(1 + name.count("\n") for name in named.values()) // columns)
    searched, has_intervals = list(series) == [""] and len(sweep.varied()) > 1, len(series) <= MOST_BANDS
    with figure(path, (7.2, 3.1 + 0.2 * rows), 1, 2) as (drawing, (left, right)):
        for (name, jobs), color, marker in zip(series.items(), SERIES_COLORS, MARKERS, strict=False):
            line = is_line(jobs, axis) and not searched
            style: dict[str, Any] = {"color": color, "marker": marker, "ms": 4.5, "lw": 1.5, "ls": "-" if line else ""}
            places = [job.factors[axis] for job in jobs]
            left.plot(places, [job.fd for job in jobs], label=named.get(name), **style)
            right.plot(places, [job.clip_i for job in jobs], **style)
            low, high = zip(*(job.evaluation.after.interval_95 for job in jobs), strict=True)
            if line and has_intervals:
                left.fill_between(places, low, high, color=color, alpha=0.08, lw=0)
                for edge in (low, high):  # where bands overlap, their edges tell whose they are
                    left.plot(places, edge, color=color, lw=0.9, ls=":")
            elif has_intervals:
                left.vlines(places, low, high, color=color, lw=0.8, alpha=0.5)
        _draw_original(left, sweep, vertical=False)
        short = wrapped(axis_name, 3, 9)
        left.set(xlabel=short, ylabel=f"FD{', 95 % interval' * has_intervals} (lower is better)")
        right.set(xlabel=short, ylabel=FD_AND_CLIP_I["ylabel"])
        values = sorted({job.factors[axis] for job in sweep.jobs})
        for panel in (left, right) if len(values) <= 8 else ():
            panel.set_xticks(values, [f"{value:g}" for value in values])
        left.set_ylim(0, 1.03 * left.get_ylim()[1])
        right.margins(y=0.1)
        title = f"FD and CLIP-I against {axis_name}, {_images(sweep)}"
        drawing.suptitle(wrapped(title, 7, 10, bold=True), **HEADING)
        if named:
            drawing.legend(frameon=False, fontsize=7.5, loc="outside lower center", ncols=columns)
    return path


def plot_front(path: Path, sweep: Sweep) -> Path:
    """Draw every job as a point, FD against CLIP-I, and the Pareto front as a line through its filled points."""
    from matplotlib.patheffects import withStroke

    rows, told = list(zip(sweep.jobs, sweep.front(), strict=True)), sweep.telling()
    labels: dict[bool, list[Any]] = {True: [], False: []}
    with figure(path, (6.4, 4.4)) as (_, axis):
        _draw_original(axis, sweep, vertical=True)
        for job, best in rows:
            look: Any = {"ms": 7, "mfc": STEERED_COLOR, "mec": STEERED_COLOR, "zorder": 3}
            if not best:
                look = {"ms": 5.5, "mfc": "white", "mec": QUIET_COLOR, "zorder": 2}
            axis.plot(job.fd, job.clip_i, "o", mew=1.2, clip_on=False, **look)
            if told and (best or len(rows) <= MOST_LABELLED):
                label = axis.annotate(
                    _label(sweep, job, told), (job.fd, job.clip_i), xytext=(-6, 4), textcoords="offset points",
                    ha="right", fontsize=6.5, color="black" if best else QUIET_COLOR, zorder=4,
                    path_effects=[withStroke(linewidth=2, foreground="white")],
                )  # fmt: skip
                labels[best].append(label)  # on the left, where nothing lies above the front
        for subject in dict.fromkeys(job.subject for job in sweep.jobs):
            members = sorted((job.fd, job.clip_i) for job, best in rows if best and job.subject == subject)
            axis.step(*zip(*members, strict=True), where="post", color=STEERED_COLOR, lw=1, alpha=0.5, zorder=1)
        furthest = max(axis.get_xlim()[1], *(job.fd for job in sweep.jobs))
        which = "all jobs" if all(best for _, best in rows) else "filled"
        title = f"Pareto front ({which}): no other is fairer and closer to the originals"
        axis.set(xlim=(0, 1.06 * furthest), title=title, **FD_AND_CLIP_I)
        axis.set_xlabel(f"{FD_AND_CLIP_I['xlabel']}; {_images(sweep)}")
        axis.margins(y=0.12)
        place_labels(axis, [*labels[True], *labels[False]], [(job.fd, job.clip_i) for job in sweep.jobs])
    return path


def _label(sweep: Sweep, job: SweepJob, told: list[str]) -> str:
    """Return what names a job; its number in the table, if that is long or many points would get long labels."""
    words = wrapped(phrase(job.factors, told), LABEL_WIDTH, 6.5)
    few = len(sweep.jobs) <= MOST_LABELLED and words.count("\n") < MOST_LABEL_LINES
    return words if len(words) <= LONGEST_LABEL or few else _number(job)


def _number(job: SweepJob) -> str:
    return f"job {job.name}"


def plot_overview(path: Path, sweep: Sweep) -> Path:
    """Draw one row per job: FD with its 95 % interval beside the original's, CLIP-I; at most 40, those of lowest FD."""
    naming, rows = sweep.telling(), list(zip(sweep.jobs, sweep.front(), strict=True))
    numbered = any(_label(sweep, job, naming) == _number(job) for job in sweep.jobs)  # in the front's figure
    if len(rows) > MOST_ROWS:
        rows = sorted(rows, key=lambda row: row[0].fd)[:MOST_ROWS]
    words = {job.name: phrase(job.factors, naming) for job, _ in rows}
    told = [f"{_number(job)}: {words[job.name]}" if numbered else words[job.name] or _number(job) for job, _ in rows]
    names = [wrapped(name, NAME_WIDTH, 7.5, most_lines=MOST_NAME_LINES) for name in told]
    height = max(0.24, 0.13 * max(1 + name.count("\n") for name in names))
    with figure(path, (7.2, 1.1 + height * len(rows)), 1, 2, sharey=True, width_ratios=(3, 2)) as (drawing, axes):
        left, right = axes
        for y, (job, best) in enumerate(rows):
            marker = {"mfc": STEERED_COLOR if best else "white", "mec": STEERED_COLOR, "ms": 6, "mew": 1.3}
            left.plot(job.evaluation.after.interval_95, [y, y], color=STEERED_COLOR, lw=1.4, alpha=0.45)
            left.plot(job.evaluation.before.mean, y, "|", color=QUIET_COLOR, ms=9, mew=1.5)
            left.plot(job.fd, y, "o", **marker)
            right.plot(job.clip_i, y, "o", **marker)
            value, beside = f"{job.clip_i:.3f}", {"xytext": (6, -2.5), "textcoords": "offset points"}
            right.annotate(value, (job.clip_i, y), fontsize=6.5, **beside)
        left.set_yticks(range(len(rows)), names, fontsize=7.5)
        left.set(xlabel="FD, 95 % interval; | original", xlim=(0, None), ylim=(len(rows) - 0.4, -0.6))
        right.set_xlabel("CLIP-I")
        right.margins(x=0.25)
        for panel in axes:
            panel.grid(axis="y", color="#e5e8eb", lw=0.6)
            panel.set_axisbelow(True)
            panel.tick_params(axis="y", length=0)
        which = "all are" if all(sweep.front()) else "filled:"
        drawing.suptitle(f"Every job; {which} on the Pareto front; {_images(sweep)}", **HEADING)
    return path


def plot_strips(path: Path, columns: list[tuple[str, list[ImageRow]]], title: str) -> Path:
    """Draw the same images under different settings: a row per image id, a column per setting.

    columns: a heading and the rows of its image table, the same ids in the same order in each; the first are the
    originals. What an image was steered to stands beside its row, or below each picture where settings differ in it.
    """
    last, steered = columns[-1][1], [rows for _, rows in columns[1:]]
    differ = len({tuple((row.option, row.is_original) for row in rows) for rows in steered}) > 1
    names = [wrapped(row.prompt, ROW_NAME_WIDTH, 7) for row in last]
    if not differ:
        names = [
            f"{name}\n{wrapped(fate_in_words(row), ROW_NAME_WIDTH, 7)}" for name, row in zip(names, last, strict=True)
        ]
    headings = ["\n".join(wrapped(part, 0.85, 7.5) for part in name.split(", ")) for name, _ in columns]
    above = max(name.count("\n") for name in headings)
    width, height = (
        0.72 * len(columns) + ROW_NAME_WIDTH,
        max(0.72 + 0.13 * differ, 0.13 * max(1 + name.count("\n") for name in names)),
    )
    title = wrapped(title, width, 10, bold=True)
    size = (width, height * len(last) + 0.4 + 0.13 * above + 0.17 * (1 + title.count("\n")))
    with figure(path, size, len(last), len(columns), squeeze=False) as (drawing, axes):
        drawing.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0, rect=(0.015, 0, 0.985, 1))
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for place, (heading, (_, rows)) in enumerate(zip(headings, columns, strict=True)):
            for axis, row, picture in zip(axes[:, place], rows, Pictures(rows), strict=True):
                axis.imshow(np.asarray(fitted(picture, STRIP_SIZE)))
                if differ and place:
                    axis.set_xlabel(fate_in_words(row), fontsize=6.5, labelpad=1)
            axes[0, place].set_title(heading, fontsize=7.5, fontweight="normal", loc="center", pad=3)
        for axis, name in zip(axes[:, 0], names, strict=True):
            axis.set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")
        drawing.suptitle(title, **HEADING)
    return path


def fate_in_words(row: ImageRow) -> str:
    """Return what became of an image in a word or two; nothing where no option was drawn."""
    if row.is_original:
        return "left as it was"
    return f"{ARROW} {row.option}" if row.option else ""


def _images(sweep: Sweep) -> str:
    """Return in words how many images the figures of a job are of."""
    numbers = [job.evaluation.num_images for job in sweep.jobs]
    least, most = min(numbers), max(numbers)
    return f"{count_text(most, 'image')} a job" if least == most else f"{least} to {most} images a job"


def _draw_original(axis: Any, sweep: Sweep, vertical: bool) -> None:
    """Draw FD of the unsteered images, where all jobs share them."""
    values = {round(job.evaluation.before.mean, 6) for job in sweep.jobs}
    if len(values) == 1:
        mark_original(axis, values.pop(), vertical)
