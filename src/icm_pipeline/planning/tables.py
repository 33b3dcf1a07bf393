"""A plan on the terminal: what is done, what will run, and what it comes to."""

import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from icm_pipeline.pipeline.table import STAGES
from icm_pipeline.planning.methods import methods_table, planned_methods
from icm_pipeline.planning.plan import PREFIXES, Item, JobPlan, Plan, most_disk
from icm_pipeline.text import size_text, time_text

PLANNING = ("stage=", "plan.", "hydra.", "hydra/", "tracker", "paths.", "shards=", "shard=", "devices=")


def print_plan(plan: Plan) -> None:
    """Print the plan of a job or, if there are several, of all of them with what they share."""
    console = Console() if sys.stdout.isatty() else Console(width=150)
    first = plan.jobs[0].settings
    if len(plan.jobs) > 1:
        console.print(_jobs_table(plan.jobs))
        title = f"Plan of {len(plan.jobs)} jobs; what several of them need counts once"
    else:
        title = f"Plan of {first.attribute.name} on {first.model.name}"
    if methods := planned_methods(plan):
        console.print(methods_table(methods))
    console.print(_stages_table(plan, title))
    for line in _summary(plan):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _jobs_table(jobs: list[JobPlan]) -> Table:
    columns = (Column(name, overflow="fold") for name in ("job", "", "makes", "shares with an earlier job"))
    table = Table(*columns, title="Jobs, in the order in which they run", box=box.SIMPLE_HEAD)
    words = [[word for word in job.words if not word.startswith(PLANNING)] for job in jobs]
    common = {word for word in words[0] if all(word in others for others in words)}
    for number, job in enumerate(jobs):
        own = " ".join(word for word in words[number] if word not in common)
        makes = ", ".join(job.makes) or ("nothing more" if job.shares else "nothing: all is done")
        table.add_row(str(number), escape(own), makes, ", ".join(job.shares))
    return table


def _stages_table(plan: Plan, title: str) -> Table:
    figures = ("images", "denoiser passes", "probes", "disk", "memory", "on the device", "time")
    columns = (Column(name, justify="right") for name in figures)
    table = Table("stage", "state", *columns, title=title, box=box.SIMPLE_HEAD)
    order = list(STAGES)
    order.insert(order.index("originals") + 1, PREFIXES)
    for stage in order:
        items = [item for (name, _), item in plan.items.items() if name == stage]
        if items:
            table.add_row(stage, *_cells(items))
    return table


def _cells(items: list[Item]) -> list[str]:
    if all(item.done for item in items):
        return [_state(items), *[""] * 7]
    works = [item.work for item in items]
    bound = "<= " if any(item.work_at_most for item in items) else ""
    return [
        _state(items),
        bound + _count(work.num_images for work in works),
        bound + _count(work.passes for work in works),
        _count(work.num_probes or 0 for work in works),
        _disk(items),
        _known(size_text, [work.memory for work in works], max),
        _known(size_text, [work.device_memory for work in works], max),
        _bounded(bound, _known(time_text, [item.seconds for item in items])),
    ]


def _state(items: list[Item]) -> str:
    if any(item.problem for item in items):
        return "damaged"
    num_done = sum(item.done for item in items)
    missing = len(items) - num_done
    if missing == 0:
        return "done" if num_done == 1 else f"{num_done} done"
    num_kept = sum(item.kept for item in items)
    kept = f", {num_kept} images are there" if num_kept else ""
    if len(items) == 1:
        return f"will run{kept}" if items[0].stage != PREFIXES else "will be kept"
    return f"{num_done} done, {missing} to make{kept}" if num_done else f"{missing} to make{kept}"


def _summary(plan: Plan) -> list[str]:
    items = [item for item in plan.items.values() if not item.done]
    if not items:
        return ["Everything is done: nothing would run."]
    unknown = dict.fromkeys(job.settings.model.path for job in plan.jobs if job.outline is None)
    return [
        *(f"{item.stage}: {item.problem}" for item in items if item.problem),
        _disk_line(plan, items),
        "Memory is that of pooled activations, probes and vectors; the model's weights and its own work come on top.",
        *_time_lines(plan, items),
        *(
            f"The layers of {path} are not known: its files are not on this disk, or model.sites asks for others than "
            "its YAML file counts. Disk and memory of activations are not in these figures; model.path=<its folder> "
            "adds them."
            for path in unknown
        ),
    ]


def _disk_line(plan: Plan, items: list[Item]) -> str:
    outputs, at_most = Path(plan.jobs[0].settings.paths.outputs), any(item.at_most for item in items)
    there = next(folder for folder in (outputs.resolve(), *outputs.resolve().parents) if folder.exists())
    free, most = shutil.disk_usage(there).free, most_disk(items)
    line = (
        f"Disk: {_disk(items) or size_text(0)} more, {size_text(most)} at once while it is made; {size_text(free)} are "
        f"free in {outputs}."
    )
    if at_most:
        line += " No picture of this model is there to go by: pictures are counted uncompressed."
    if most > free:
        line += f" That {'may not be' if at_most else 'is not'} enough: set paths.outputs to a larger disk, or "
        line += "record fewer steps (timesteps=five)."
    return line


def _time_lines(plan: Plan, items: list[Item]) -> list[str]:
    """Say how long it takes one device and, if the work is shared, all of them; or what is missing to say so."""
    lines, unknown = [], [item for item in items if item.seconds is None]
    if seconds := sum(item.seconds or 0 for item in items):
        more = " and what is not known" if unknown else ""
        lines.append(f"Time: {time_text(seconds)} of one device{more}.")
        settings = plan.jobs[0].settings
        workers = max(settings.shards, len(settings.devices))
        if workers > 1:
            shared = sum(item.seconds or 0 for item in items if item.shared)
            at_once = time_text(seconds - shared + shared / workers)
            lines[-1] += f" {at_once} with {workers} of them at work, each loading the model once more."
    if unknown:
        lines.append(
            f"Not known: the time of {', '.join(dict.fromkeys(item.stage for item in unknown))}. Nothing like it was "
            "made on a device of this name into this outputs folder."
        )
    if any(item.work.passes for item in unknown):
        lines.append(
            f"There are {_count(item.work.passes for item in items)} denoiser passes to go, one for each image and "
            "step: give plan.seconds_per_image=<seconds that one unsteered image takes>."
        )
    return lines


def _count(numbers: Iterable[int]) -> str:
    number = sum(numbers)
    return f"{number:,}" if number else ""


def _disk(items: list[Item]) -> str:
    bound = "<= " if any(item.at_most for item in items) else ""
    return _bounded(bound, _known(size_text, [item.disk for item in items]))


def _bounded(bound: str, told: str) -> str:
    return told if told in ("", "?") else bound + told


def _known(text: Callable[[float], str], values: list[float | None], add: Callable[[list[float]], float] = sum) -> str:
    """Return in words what values come to, with a question mark if some are unknown."""
    known, unknown = [value for value in values if value], None in values
    if not known:
        return "?" if unknown else ""
    return text(add(known)) + (" + ?" if unknown else "")
