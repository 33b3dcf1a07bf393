"""The bench's page and table: every method with what it did, what it cost and what it asks for."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icm_pipeline.methods.base import Method
from icm_pipeline.methods.registry import method_named
from icm_pipeline.report.wording import describe, phrase
from icm_pipeline.results.bench import (
    KINDS,
    ExplicitPrompts,
    StrengthChoice,
    choice_of,
    explicit_of,
    kind_of,
    learning_images,
    learning_seconds,
    learnt_bytes,
    steered_images,
)
from icm_pipeline.results.evaluation import mean_of
from icm_pipeline.results.sweeps import STEERING_FACTORS, Sweep, SweepJob, varied_among
from icm_pipeline.text import count_text, number_text, size_text

# Factors that steering tells, which may differ between rows and never tell one bench from another.
OF_STEERING = {"model", "attribute", *STEERING_FACTORS, "k", "alpha", "first_step", "last_step"}


@dataclass(frozen=True)
class BenchRow:
    """A method of a bench."""

    job: SweepJob
    method: Method
    kind: str
    choice: StrengthChoice | None
    explicit: ExplicitPrompts | None
    varied: tuple[str, ...] = ()
    """The factors in which rows of its method and subject differ."""

    @property
    def name(self) -> str:
        """The method's, or that of the file that chose it."""
        return str(self.job.factors["method"])

    @property
    def asks_for(self) -> str:
        """What it takes of labels, images and training."""
        return self.method.what_it_asks(self.job.steering)

    @property
    def setting(self) -> str:
        """What tells the row from others of its method; empty where there are none."""
        return phrase(self.job.factors, self.varied)

    @property
    def label(self) -> str:
        """What no other row of its subject is called."""
        return f"{self.name}, {self.setting}" if self.setting else self.name

    @property
    def smaller(self) -> str:
        """What is smaller than where the method was published."""
        shown = [shares for of_prompts in self.job.evaluation.shares.values() for shares in of_prompts.values()]
        num_steps = self.job.steered.manifest.config.get("model.num_steps") if self.job.steered else None
        return self.method.what_is_smaller(self.job.steering.params, max(map(len, shown), default=2), num_steps)


@dataclass(frozen=True)
class BenchTable:
    """A table for reading."""

    heading: str
    about: str
    titles: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Bench:
    """What can be compared: the rows of one model, attribute, set of originals and judge."""

    rows: list[BenchRow]
    """A row per method and setting, those of a kind together, of least FD first."""
    setting: str = ""
    """What tells it from others of its model and attribute, in words."""

    @property
    def fronts(self) -> dict[str, StrengthChoice]:
        """The choices of a strength that have a front, by row."""
        return {
            row.label: row.choice for row in self.rows if row.choice is not None and row.choice.chosen.fd is not None
        }


def benches_of(sweep: Sweep) -> list[Bench]:
    """Return a bench per subject, in the order of their jobs."""
    subjects: dict[str, list[SweepJob]] = {}
    for job in sweep.jobs:
        subjects.setdefault(job.subject, []).append(job)
    firsts = [jobs[0] for jobs in subjects.values()]
    constant = [
        name for name in varied_among(firsts) if not any(name in varied_among(jobs) for jobs in subjects.values())
    ]
    told = [name for name in constant if name not in OF_STEERING]
    places = Counter((job.evaluation.model, job.evaluation.attribute) for job in firsts)
    return [
        Bench(
            sorted(map(_row, jobs, _settings_of(jobs)), key=lambda row: (KINDS.index(row.kind), row.job.fd)),
            phrase(first.factors, told) if places[first.evaluation.model, first.evaluation.attribute] > 1 else "",
        )
        for first, jobs in zip(firsts, subjects.values(), strict=True)
    ]


def _settings_of(jobs: Sequence[SweepJob]) -> list[tuple[str, ...]]:
    """Return for each job the factors in which those of its method differ, but for a strength that was chosen."""
    varied = {
        method: varied_among([job for job in jobs if job.factors["method"] == method])
        for method in {job.factors["method"] for job in jobs}
    }
    return [
        tuple(name for name in varied[job.factors["method"]] if not ("strength" in job.artifacts and name == "alpha"))
        for job in jobs
    ]


def _row(job: SweepJob, varied: tuple[str, ...]) -> BenchRow:
    method = method_named(job.steering.method)
    return BenchRow(job, method, kind_of(method, job), choice_of(job), explicit_of(job), varied)


def write_bench_table(path: Path, benches: Sequence[Bench]) -> None:
    """Write the table at full precision; a cell is empty where there is no such figure."""
    cells = [_cells(row, bench.setting) for bench in benches for row in bench.rows]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *([row.get(name) for name in columns] for row in cells)])


def write_bench_page(path: Path, sweep: Sweep, benches: Sequence[Bench], fronts: Sequence[Path | None]) -> None:
    """Write the page beside its figures, a part for each bench; fronts: of each."""
    lines = list[str]()
    for bench, front in zip(benches, fronts, strict=True):
        figures, costs = bench_tables(bench)
        lines += [f"# {figures.heading}\n", f"{figures.about} docs/bench.md says how to read this.\n", *_table(figures)]
        lines += [f"{costs.heading}:\n", *_table(costs)]
        if front is not None:
            lines += ["## Strengths on tuning seeds\n", f"![Strengths on tuning seeds]({front.name})\n"]
    if sweep.left_out:
        lines += ["Left out:", "", *(f"- job {name}: {reason}" for name, reason in sweep.left_out.items()), ""]
    path.write_text("\n".join(lines), "utf-8")


def bench_tables(bench: Bench) -> tuple[BenchTable, BenchTable]:
    """Return what the methods did, and what that costs and asks for."""
    rows, one = bench.rows, bench.rows[0].job.evaluation
    where = ", ".join(
        [f"{one.attribute.replace('_', ' ')} on {one.model}", *([bench.setting] if bench.setting else [])]
    )
    setting = ["setting"] if any(row.setting for row in rows) else []
    names = [[row.name, *([row.setting] if setting else [])] for row in rows]
    num_methods = len({row.name for row in rows})
    others = list(dict.fromkeys(name for row in rows for name in row.job.evaluation.kept))
    kept = [f"kept {name.replace('_', ' ')}" for name in others]
    figures = BenchTable(
        f"Bench of {count_text(num_methods, 'method')}: {where}",
        f"{one.num_images} images each of the same prompts and seeds, FD {one.before.mean:.3f} before. "
        f"{_about_strengths(rows)}",
        ["method", *setting, "kind", "strength", "FD", "95 %", "FD of labels", "DevRat", "obeyed", "CLIP-I", *kept,
         "explicit prompts kept"],
        [[*name, *_figures(row, others)] for name, row in zip(names, rows, strict=True)],
    )  # fmt: skip
    titles = ["method", *setting, "as steered", "learning", "more an image", "on disk", "asks for", "scaled down"]
    costs = [[*name, *_costs(row)] for name, row in zip(names, rows, strict=True)]
    return figures, BenchTable("What it costs and asks for", "", titles, costs)


def _table(table: BenchTable) -> list[str]:
    body = (" | ".join(cell.replace("|", "/") for cell in row) for row in table.rows)
    lines = [f"| {row} |" for row in body]
    return [f"| {' | '.join(table.titles)} |", "|---" * len(table.titles) + "|", *lines, ""]


def _about_strengths(rows: Sequence[BenchRow]) -> str:
    chosen = [row.choice for row in rows if row.choice is not None]
    if not chosen:
        return "No strength was chosen: every method is as it was set."
    one, budgets = chosen[0], sorted({choice.clip_i_budget for choice in chosen})
    kept = " or ".join(f"{each:g}" for each in budgets)
    is_blind = any(choice.chosen.fd is None for choice in chosen)
    unseen = ", ? where the labeler saw too little for FD, so that CLIP-I alone chose" if is_blind else ""
    return (
        f"Strengths: of least FD among those with CLIP-I {kept} or more, of {one.num_images} images of "
        f"{count_text(one.num_prompts, 'tuning prompt')} judged by the labeler; ! where none keeps so much{unseen}."
    )


def _figures(row: BenchRow, others: Sequence[str]) -> list[str]:
    found, fair, told = row.job.evaluation, row.job.evaluation.fairness, row.explicit
    explicit = "" if told is None else f"{told.kept:.0%} (unsteered {told.kept_unsteered:.0%})"
    return [
        row.kind, _strength(row.choice), f"{row.job.fd:.3f}",
        "{:.3f} to {:.3f}".format(*found.after.interval_95), number_text(mean_of(fair.fd_labels), ".3f"),
        number_text(mean_of(fair.deviation_ratio), ".3f"), number_text(found.obeyed, ".0%"), f"{row.job.clip_i:.3f}",
        *(number_text(found.kept.get(name), ".0%") for name in others), explicit,
    ]  # fmt: skip


def _strength(choice: StrengthChoice | None) -> str:
    if choice is None:
        return "-"
    marks = f"{'' if choice.within_budget else ' !'}{' ?' if choice.chosen.fd is None else ''}"
    return f"{choice.setting.removeprefix('params.')} {choice.value:.3g}{marks}"


def _costs(row: BenchRow) -> list[str]:
    seconds, size = learning_seconds(row.method, row.job), learnt_bytes(row.job)
    return [
        describe(row.job.steering), _learning(seconds, learning_images(row.job)),
        _more(row.explicit) or _spared(row), size_text(size) if size else "nothing",
        row.asks_for, row.smaller,
    ]  # fmt: skip


def _more(told: ExplicitPrompts | None) -> str:
    """Return what an image takes beyond an unsteered one; of when ways did not take turns, without the batches."""
    if told is None or told.more_seconds is None:
        return ""
    if not told.more:
        return f"{told.more_seconds:+.2f} s"
    inside = "" if told.more_quartiles is None else "{:+.2f} to {:+.2f}, ".format(*told.more_quartiles)
    return f"{told.more_seconds:+.2f} s ({inside}{len(told.more)} {'batch' if len(told.more) == 1 else 'batches'})"


def _spared(row: BenchRow) -> str:
    """Return what is made beside an image where only some are steered, by what they show or would show."""
    steered = steered_images(row.job)
    if steered is None:
        return ""
    share, look = steered / row.job.evaluation.num_images, row.job.steering.look
    return f"{share:.2f} steered images" if look is None else f"its first steps; {share:.0%} are steered"


def _learning(seconds: float | None, images: int) -> str:
    if seconds is None:
        return "?"
    return f"{seconds / 60:.1f} min" + (f", {count_text(images, 'image')}" if images else "")


def _cells(row: BenchRow, bench: str) -> dict[str, Any]:
    found, fair, choice, told = row.job.evaluation, row.job.evaluation.fairness, row.choice, row.explicit
    seconds, (low, high) = learning_seconds(row.method, row.job), (told and told.more_quartiles) or (None, None)
    return {
        "job": row.job.name, "model": found.model, "attribute": found.attribute, "bench": bench, "method": row.name,
        "setting": row.setting, "kind": row.kind, "as_steered": describe(row.job.steering),
        "strength_setting": choice and choice.setting, "strength": choice and choice.value,
        "within_budget": choice and choice.within_budget, "tuning_fd": choice and choice.chosen.fd,
        "tuning_clip_i": choice and choice.chosen.clip_i, "num_images": found.num_images,
        "fd_original": found.before.mean, "fd": row.job.fd, "fd_low": found.after.interval_95[0],
        "fd_high": found.after.interval_95[1], "fd_labels": mean_of(fair.fd_labels),
        "deviation_ratio": mean_of(fair.deviation_ratio), "obeyed": found.obeyed, "clip_i": row.job.clip_i,
        **{f"kept_{name}": value for name, value in found.kept.items()},
        "explicit_kept": told and told.kept, "explicit_kept_unsteered": told and told.kept_unsteered,
        "explicit_images": told and told.num_images, "learning_minutes": None if seconds is None else seconds / 60,
        "learning_images": learning_images(row.job),
        "seconds_per_image": told and told.seconds, "seconds_per_image_unsteered": told and told.seconds_unsteered,
        "more_seconds": told and told.more_seconds, "more_seconds_low": low, "more_seconds_high": high,
        "timed_batches": told and len(told.more or ()),
        "bytes": learnt_bytes(row.job), "steered_images": steered_images(row.job),
        "asks_for": row.asks_for, "scaled_down": row.smaller,
    }  # fmt: skip
