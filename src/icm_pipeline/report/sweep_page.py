"""The sweep's page: its table and figures as Markdown, and the table as CSV."""

import csv
from pathlib import Path
from typing import Any

from icm_pipeline.report.wording import caution_of_intervals
from icm_pipeline.results.sweeps import Sweep
from icm_pipeline.text import count_text, number_text


def write_sweep_table(path: Path, sweep: Sweep) -> None:
    """Write the table at full precision; a cell is empty where a job has no such factor."""
    rows = [
        {
            "job": job.name,
            **{name: job.factors.get(name) for name in sweep.varied()},
            "fd_original": job.evaluation.before.mean,
            "fd": job.fd,
            "fd_low": job.evaluation.after.interval_95[0],
            "fd_high": job.evaluation.after.interval_95[1],
            "clip_i": job.clip_i,
            "obeyed": job.evaluation.obeyed,
            **{f"kept_{name}": value for name, value in job.evaluation.kept.items()},
            "front": best,
        }
        for job, best in zip(sweep.jobs, sweep.front(), strict=True)
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *([row.get(name) for name in columns] for row in rows)])


def write_sweep_page(path: Path, sweep: Sweep, figures: dict[str, Path]) -> None:
    """Write the page beside its figures, {title: file}."""
    columns, cells = sweep_cells(sweep)
    lines = [
        f"# {sweep_title(sweep)}\n",
        f"In all of them: {', '.join(same_in_all(sweep))}.\n",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *(f"| {' | '.join(row)} |" for row in cells),
        "\n\\* on the Pareto front: no other job has a lower FD and a higher CLIP-I.\n",
        *(f"{caution}\n" for caution in sweep_cautions(sweep)),
    ]
    if sweep.left_out:
        lines += ["Left out:", "", *(f"- job {name}: {reason}" for name, reason in sweep.left_out.items()), ""]
    for title, figure in figures.items():
        lines += [f"## {title}\n", f"![{title}]({figure.name})\n"]
    path.write_text("\n".join(lines), "utf-8")


def sweep_title(sweep: Sweep) -> str:
    return f"Sweep {sweep.folder.name}: {count_text(len(sweep.jobs), 'job')}"


def sweep_cautions(sweep: Sweep) -> list[str]:
    """Return what its intervals cannot tell, by the job of the fewest images."""
    return caution_of_intervals(min(job.evaluation.num_images for job in sweep.jobs))


def same_in_all(sweep: Sweep) -> list[str]:
    """Return the factors that all jobs share, in words."""
    shared = {name: value for name, value in sweep.jobs[0].factors.items() if name not in sweep.varied()}
    return [f"{_title(name)} {_cell(value)}" for name, value in shared.items() if value is not None]


def sweep_cells(sweep: Sweep, kept: bool = True) -> tuple[list[str], list[list[str]]]:
    """Return the table as titles and cells for reading: rounded numbers, one column for the interval, * for the front.

    kept: whether to add a column for each other attribute, which takes much room.
    """
    varied = sweep.varied()
    others = list(dict.fromkeys(name for job in sweep.jobs for name in job.evaluation.kept if kept))
    titles = ["job", *map(_title, varied), "FD before", "FD after", "95 %", "CLIP-I", "obeyed"]
    cells = [
        [
            job.name,
            *(_cell(job.factors.get(name)) for name in varied),
            f"{job.evaluation.before.mean:.3f}",
            f"{job.fd:.3f}",
            "{:.2f} to {:.2f}".format(*job.evaluation.after.interval_95),
            f"{job.clip_i:.3f}",
            number_text(job.evaluation.obeyed, ".0%"),
            *(f"{job.evaluation.kept[name]:.0%}" if name in job.evaluation.kept else "" for name in others),
            "*" if best else "",
        ]
        for job, best in zip(sweep.jobs, sweep.front(), strict=True)
    ]
    return [*titles, *(f"kept {name.replace('_', ' ')}" for name in others), "front"], cells


def _title(name: str) -> str:
    """Return a factor's name in words; a setting's name as on the command line."""
    return name if "." in name else name.replace("_", " ")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:z.4g}"
    return str(value).replace("|", "/")
