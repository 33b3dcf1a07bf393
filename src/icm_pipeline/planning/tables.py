"""A plan on the terminal: what is done, what will run, and what it comes to."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from icm_pipeline.pipeline.table import STAGES
from icm_pipeline.planning.plan import PREFIXES, Item, JobPlan, Plan, Total, most_disk, total
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
    console.print(_stages_table(plan, title))
    for line in _summary(plan):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _jobs_table(jobs: list[JobPlan]) -> Table:
    table = Table(title="Jobs, in the order in which they run", box=box.SIMPLE_HEAD)
    for column in ("job", "", "makes", "shares with an earlier job"):
        table.add_column(column, overflow="fold")
    words = [[word for word in job.words if not word.startswith(PLANNING)] for job in jobs]
    common = {word for word in words[0] if all(word in others for others in words)}
    for number, job in enumerate(jobs):
        own = " ".join(word for word in words[number] if word not in common)
        makes = ", ".join(job.makes) or ("nothing more" if job.shares else "nothing: all is done")
        table.add_row(str(number), escape(own), makes, ", ".join(job.shares))
    return table


def _stages_table(plan: Plan, title: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for column in ("stage", "state"):
        table.add_column(column)
    for column in ("images", "denoiser passes", "probes", "disk", "memory", "on the device", "time"):
        table.add_column(column, justify="right")
    order = list(STAGES)
    order.insert(order.index("originals") + 1, PREFIXES)
    for stage in order:
        items = [item for (name, _), item in plan.items.items() if name == stage]
        if items:
            table.add_row(stage, *_cells(items, total(items)))
    return table


def _cells(items: list[Item], sums: Total) -> list[str]:
    if sums.num_done == sums.num_items:
        return [_state(items, sums), *[""] * 7]
    device_unknown = any(item.work.device_memory is None for item in items)
    return [
        _state(items, sums),
        _count(sums.num_images),
        _count(sums.passes),
        _count(sums.num_probes),
        _known(size_text, sums.disk, sums.disk_unknown, sums.at_most),
        _known(size_text, sums.memory, sums.memory_unknown),
        _known(
            size_text,
            sums.device_memory,
            device_unknown,
        ),
        _known(time_text, sums.seconds, sums.seconds_unknown),
    ]


def _state(items: list[Item], sums: Total) -> str:
    if any(item.problem for item in items):
        return "damaged"
    missing = sums.num_items - sums.num_done
    if missing == 0:
        return "done" if sums.num_items == 1 else f"{sums.num_done} done"
    kept = f", {sums.kept} images are there" if sums.kept else ""
    if sums.num_items == 1:
        return f"will run{kept}" if items[0].stage != PREFIXES else "will be kept"
    return f"{sums.num_done} done, {missing} to make{kept}" if sums.num_done else f"{missing} to make{kept}"


def _summary(plan: Plan) -> list[str]:
    items = [item for item in plan.items.values() if not item.done]
    lines = [f"{item.stage}: {item.problem}" for item in items if item.problem]
    if not items:
        return ["Everything is done: nothing would run."]
    sums = total(items)
    lines.append(_disk_line(plan, items, sums))
    lines.append(
        "Memory is that of pooled activations, probes and vectors; the model's weights and its own work come on top."
    )
    lines += _time_lines(plan, items, sums)
    lines += _unknown_lines(plan)
    return lines


def _disk_line(plan: Plan, items: list[Item], sums: Total) -> str:
    outputs = Path(plan.jobs[0].settings.paths.outputs)
    free = shutil.disk_usage(_existing(outputs)).free
    more, most = _known(size_text, sums.disk, sums.disk_unknown, sums.at_most) or size_text(0), most_disk(items)
    line = f"Disk: {more} more, {size_text(most)} at once while it is made; {size_text(free)} are free in {outputs}."
    if sums.at_most:
        line += " No picture of this model is there to go by: pictures are counted uncompressed."
    if most > free:
        line += f" That {'may not be' if sums.at_most else 'is not'} enough: set paths.outputs to a larger disk, or "
        line += "record fewer steps (timesteps=five)."
    return line


def _time_lines(plan: Plan, items: list[Item], sums: Total) -> list[str]:
    """Say how long it takes one device and, if the work is shared, all of them; or what is missing to say so."""
    lines = []
    if sums.seconds:
        more = " and what is not known" if sums.seconds_unknown else ""
        lines.append(f"Time: {time_text(sums.seconds)} of one device{more}.")
        settings = plan.jobs[0].settings
        workers = max(settings.shards, len(settings.devices))
        if workers > 1:
            at_once = sums.seconds - sums.shared_seconds + sums.shared_seconds / workers
            lines[-1] += f" {time_text(at_once)} with {workers} of them at work, each loading the model once more."
    unknown = list(dict.fromkeys(item.stage for item in items if item.seconds is None))
    if unknown:
        lines.append(
            f"Not known: the time of {', '.join(unknown)}. Nothing like it was made on a device of this name into this "
            "outputs folder."
        )
    if any(item.seconds is None and item.work.passes for item in items):
        lines.append(
            f"There are {sums.passes:,} denoiser passes to go, one for each image and step: give "
            "plan.seconds_per_image=<seconds that one unsteered image takes>."
        )
    return lines


def _unknown_lines(plan: Plan) -> list[str]:
    models = dict.fromkeys(job.settings.model.path for job in plan.jobs if job.outline is None)
    return [
        f"The layers of {path} are not known: its files are not on this disk, or model.sites asks for others than its "
        "YAML file counts. Disk and memory of activations are not in these figures; model.path=<its folder> adds them."
        for path in models
    ]


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    return folder if folder.exists() else _existing(folder.parent)


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _known(text: Callable[[float], str], value: float, unknown: int, at_most: int = 0) -> str:
    """Return a sum in words, with a question mark for what of it is unknown."""
    if not value:
        return "?" if unknown else ""
    return f"{'<= ' if at_most else ''}{text(value)}{' + ?' if unknown else ''}"
