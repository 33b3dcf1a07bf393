"""Tables on the terminal; light, so that a run with nothing to do prints its result at once."""

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from icm_pipeline.text import count_text


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print the table of one evaluation, originals beside steered; what was not measured has no row."""
    steering, original, steered = metrics["steering"], metrics["fd_original"], metrics["fd"]
    if steering is None:
        title = f"{metrics['attribute']} in {metrics['model']}, {count_text(metrics['num_images'], 'image')}"
    else:
        layers = count_text(len(steering["layers"]), "layer")
        title = f"{metrics['attribute']} on {metrics['model']}, {layers}, alpha {steering['alpha']:g} "
        title += f"({steering['alpha_unit']})"
    table = Table(title=escape(title))
    for column in ("", "original", "steered" if steering else "images"):
        table.add_column(column, justify="left" if not column else "right")

    def add(name: str, before: str | None, after: str | None) -> None:
        if before is not None or after is not None:
            table.add_row(escape(name), before or "", after or "")

    for prompt, value in steered["by_prompt"].items():
        add(f"FD  {prompt}", original and f"{original['by_prompt'][prompt]:.3f}", f"{value:.3f}")
    table.add_section()
    add("FD  mean", original and f"{original['mean']:.3f}", f"[bold]{steered['mean']:.3f}[/bold]")
    add("    95 % interval", *(row and "{:.3f} to {:.3f}".format(*row["interval_95"]) for row in (original, steered)))
    perfect = f"    of a perfect steerer ({steering['assignment']})" if steering else "    if all obeyed"
    add(perfect, None, _number(metrics["fd_floor"]))
    change = metrics["fd_change"]
    add("    change, 95 % interval of pairs", None, change and "{:+z.3f} to {:+z.3f}".format(*change["interval_95"]))
    worst = (metrics["worst_share_original"], metrics["worst_share"])
    add("share of the rarest option", *(row and f"{row['mean']:.1%}" for row in worst))
    table.add_section()
    add("CLIP-I", None, _number(metrics["clip_i"]))
    add("CLIP-T", _number(metrics["clip_t_original"]), _number(metrics["clip_t"]))
    for name in ("fid", "kid") if metrics["reference"] else ():
        add(name.upper(), *(_number(metrics["reference"].get(name + when)) for when in ("_original", "")))
    obeyed = metrics["obeyed"]
    add("show the option they were steered to", None, None if obeyed is None else f"{obeyed:.1%}")
    for name, value in metrics["kept"].items():
        add(f"kept their {name.replace('_', ' ')}", None, f"{value:.1%}")
    if metrics["agreement"]:
        shares = (metrics["agreement"].get(side, {}).get("share") for side in ("original", "steered"))
        add("two judges agree", *(None if share is None else f"{share:.1%}" for share in shares))
    for name, count in _lost(metrics).items():
        add(name, *count)
    Console().print(table)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:z.3f}"


def _lost(metrics: dict[str, Any]) -> dict[str, tuple[str | None, str | None]]:
    """Return how many images of folders could not be judged, and why, where there are any."""
    unreadable = metrics.get("unreadable", {})
    counts = {
        "cannot be read": [len(unreadable.get(side) or {}) for side in ("reference", "images")],
        "judge saw no option": [metrics["unseen"].get(side, 0) for side in ("originals", "steered")],
        "have no twin": [0, len(metrics.get("without_twin", []))],
    }
    return {name: (str(a or ""), str(b or "")) for name, (a, b) in counts.items() if a or b}


def print_ranking(selection: dict[str, Any], most: int | None = None) -> None:
    """Print the layers, best first, with the chosen ones marked; `most` rows, but every chosen layer."""
    rows, chosen = selection["ranking"], selection["layers"]
    shown = [row for place, row in enumerate(rows) if most is None or place < most or row["layer"] in chosen]
    heading = "Layers by mean held-out accuracy over timesteps; * is steered"
    caption = f"{len(shown)} of {count_text(len(rows), 'layer')}"
    table = Table(title=heading, box=box.SIMPLE_HEAD, caption=caption, padding=0, show_edge=False)
    for title in ("", "accuracy", "layer", "kind"):
        table.add_column(title, no_wrap=True, min_width=1)
    for row in shown:
        mark = "*" if row["layer"] in chosen else ""
        table.add_row(mark, f"{row['score']:.3f}", escape(row["layer"]), row["kind"].replace("_", "-"))
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
