"""What each method of a sweep would make, take and ask for: a bench's rows before there is a bench.

Images follow from the settings. What learning takes, how much longer an image is made and what is kept on disk is what
was measured here of the same method on the same model, and unknown before.
"""

from dataclasses import dataclass

from rich import box
from rich.table import Column, Table

from icm_pipeline.methods.registry import method_named
from icm_pipeline.planning.plan import JobPlan, Plan
from icm_pipeline.text import size_text

UNKNOWN, NOTHING = "?", "nothing"


@dataclass(frozen=True)
class MethodPlan:
    """One job's method."""

    name: str
    """The method's, or that of the file that chose it."""
    images: int
    """That the job is the first to make."""
    learning: str
    """Minutes of its fit, and of what is made for that or chooses its layers."""
    more: str
    """Seconds an image beyond an unsteered one."""
    size: str
    """Of what steering takes along."""
    asks_for: str
    scaled_down: str


def planned_methods(plan: Plan) -> list[MethodPlan]:
    """Return a row for each job; none where all jobs have the same method."""
    if len({job.settings.method.name for job in plan.jobs}) < 2:
        return []
    return [_planned(job) for job in plan.jobs]


def methods_table(rows: list[MethodPlan]) -> Table:
    columns = ("images", "learning", "more an image", "on disk")
    table = Table(
        Column("method", no_wrap=True), *(Column(name, justify="right") for name in columns),
        Column("asks for", overflow="fold"), Column("scaled down", overflow="fold"),
        title="Methods; ? was not measured here before", box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for row in rows:
        table.add_row(row.name, f"{row.images:,}", row.learning, row.more, row.size, row.asks_for, row.scaled_down)
    return table


def _planned(job: JobPlan) -> MethodPlan:
    method = method_named(job.settings.method.name)
    words = [word.removeprefix("method=") for word in job.words if word.startswith("method=")]
    measured = job.measured
    learning = _in_minutes(measured.learning)
    more = UNKNOWN if measured.more_seconds is None else f"{measured.more_seconds:+.2f} s"
    size = NOTHING if method.fit is None else UNKNOWN if measured.size is None else size_text(measured.size)
    name = words[-1] if words else method.name
    params, num_options = job.settings.method.params, len(job.settings.attribute.options)
    smaller = method.what_is_smaller(params, num_options, job.settings.model.num_steps)
    asks_for = method.what_it_asks(job.settings.method)
    return MethodPlan(name, job.images, learning, more, size, asks_for, smaller)


def _in_minutes(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{seconds / 60:.1f} min"
