"""Tables on the terminal; light, so that a run with nothing to do prints its result at once."""

from collections.abc import Sized

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from icm_pipeline.report.wording import title_of
from icm_pipeline.results.evaluation import Change, Discrepancy, Evaluation, mean_of
from icm_pipeline.results.scores import Selection
from icm_pipeline.text import count_text


def print_metrics(evaluation: Evaluation) -> None:
    """Print the table of one evaluation, originals beside steered; what was not measured has no row."""
    fair, reference, agreement = evaluation.fairness, evaluation.reference, evaluation.agreement
    before, after, steering = fair.fd_original, fair.fd, evaluation.steering
    originals = before.by_prompt if before else {}
    table = Table(title=escape(title_of(evaluation)))
    for column in ("", "original", "steered" if steering else "images"):
        table.add_column(column, justify="left" if not column else "right")

    def add(name: str, before: str | None, after: str | None) -> None:
        if before is not None or after is not None:
            table.add_row(escape(name), before or "", after or "")

    for prompt, value in after.by_prompt.items():
        add(f"FD  {prompt}", _number(originals.get(prompt)), _number(value))
    table.add_section()
    add("FD  mean", _number(mean_of(before)), f"[bold]{after.mean:.3f}[/bold]")
    add("    95 % interval", _interval(before), _interval(after))
    perfect = f"    of a perfect steerer ({steering.assignment})" if steering else "    if all obeyed"
    add(perfect, None, _number(fair.fd_floor))
    add("    change, 95 % interval of pairs", None, _interval(fair.fd_change, "+z"))
    worst = (fair.worst_share_original, fair.worst_share)
    add("share of the rarest option", *(_percent(mean_of(side)) for side in worst))
    table.add_section()
    add("CLIP-I", None, _number(evaluation.clip_i))
    add("CLIP-T", _number(evaluation.clip_t_original), _number(evaluation.clip_t))
    if reference:
        add("FID", _number(reference.fid_original), _number(reference.fid))
        add("KID", _number(reference.kid_original), _number(reference.kid))
    add("show the option they were steered to", None, _percent(evaluation.obeyed))
    for name, share in evaluation.kept.items():
        add(f"kept their {name.replace('_', ' ')}", None, _percent(share))
    if agreement:
        sides = (agreement.original, agreement.steered)
        add("two judges agree", *(_percent(side.share if side else None) for side in sides))
    lost, unseen = evaluation.lost, evaluation.unseen
    unreadable = lost.unreadable or {}
    add("cannot be read", *(_count(unreadable.get(side)) for side in ("reference", "images")))
    add("judge saw no option", *(str(unseen.get(side) or "") or None for side in ("originals", "steered")))
    add("have no twin", None, _count(lost.without_twin))
    Console().print(table)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:z.3f}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _interval(figure: Discrepancy | Change | None, sign: str = "") -> str | None:
    return None if figure is None else " to ".join(f"{limit:{sign}.3f}" for limit in figure.interval_95)


def _count(lost: Sized | None) -> str | None:
    return str(len(lost)) if lost else None


def print_ranking(selection: Selection, most: int | None = None) -> None:
    """Print the layers, best first, with the chosen ones marked; `most` rows, but every chosen layer."""
    rows, chosen = selection.ranking, selection.layers
    shown = [row for place, row in enumerate(rows) if most is None or place < most or row.layer in chosen]
    heading = "Layers by mean held-out accuracy over timesteps; * is steered"
    caption = f"{len(shown)} of {count_text(len(rows), 'layer')}"
    table = Table(title=heading, box=box.SIMPLE_HEAD, caption=caption, padding=0, show_edge=False)
    for title in ("", "accuracy", "layer", "kind"):
        table.add_column(title, no_wrap=True, min_width=1)
    for row in shown:
        mark = "*" if row.layer in chosen else ""
        table.add_row(mark, f"{row.score:.3f}", escape(row.layer), row.kind.replace("_", "-"))
    _whole_lines(table).print(table)


def _whole_lines(table: Table) -> Console:
    """Return a console as wide as the terminal, or as the table if that is wider: no layer's name is cut or folded."""
    console = Console()
    needed = Console(width=500).measure(table).maximum
    return console if needed <= console.width else Console(width=needed)


def print_sweep(title: str, columns: list[str], cells: list[list[str]], left_out: dict[str, str]) -> None:
    """Print one row per evaluated job, and below it the jobs that are left out with the reason."""
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, caption="* on the Pareto front of FD and CLIP-I")
    for column in columns:
        table.add_column(escape(column), overflow="fold")
    for row in cells:
        table.add_row(*map(escape, row))
    console = Console()
    console.print(table)
    for name, reason in left_out.items():
        console.print(f"left out: job {name} {reason}", markup=False, highlight=False)
