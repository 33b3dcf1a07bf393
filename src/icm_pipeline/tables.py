"""Tables on the terminal; light, so that a run with nothing to do prints its result at once."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print the table of one evaluation, originals beside steered."""
    steering = metrics["steering"]
    table = Table(
        title=f"{metrics['attribute']} on {metrics['model']}, {len(steering['layers'])} layers, "
        f"alpha {steering['alpha']:g} ({steering['alpha_unit']})"
    )
    for title in ("", "original", "steered"):
        table.add_column(title, justify="left" if not title else "right")
    for prompt, value in metrics["fd_original"]["by_prompt"].items():
        table.add_row(f"FD  {prompt}", f"{value:.3f}", f"{metrics['fd']['by_prompt'][prompt]:.3f}")
    original, steered = metrics["fd_original"], metrics["fd"]
    table.add_section()
    table.add_row("FD  mean", f"{original['mean']:.3f}", f"[bold]{steered['mean']:.3f}[/bold]")
    table.add_row("    95 % interval", *("{:.3f} to {:.3f}".format(*row["interval_95"]) for row in (original, steered)))
    table.add_row(f"    of a perfect steerer ({steering['assignment']})", "", f"{metrics['fd_floor']:.3f}")
    table.add_row(
        "    change, 95 % interval of pairs", "", "{:+.3f} to {:+.3f}".format(*metrics["fd_change"]["interval_95"])
    )
    worst = [f"{metrics[name]['mean']:.1%}" for name in ("worst_share_original", "worst_share")]
    table.add_row("share of the rarest option", *worst)
    table.add_section()
    table.add_row("CLIP-I", "", f"{metrics['clip_i']:.3f}")
    table.add_row("CLIP-T", f"{metrics['clip_t_original']:.3f}", f"{metrics['clip_t']:.3f}")
    if metrics["reference"]:
        for name in ("fid", "kid"):
            table.add_row(name.upper(), *(f"{metrics['reference'][name + when]:.3f}" for when in ("_original", "")))
    table.add_row("show the option they were steered to", "", f"{metrics['obeyed']:.1%}")
    for name, value in metrics["kept"].items():
        table.add_row(f"kept their {name.replace('_', ' ')}", "", f"{value:.1%}")
    if metrics["agreement"]:
        shares = (metrics["agreement"][side]["share"] for side in ("original", "steered"))
        table.add_row("two judges agree", *("" if share is None else f"{share:.1%}" for share in shares))
    Console().print(table)


def print_ranking(selection: dict[str, Any], most: int | None = None) -> None:
    """Print the layers, best first, with the chosen ones marked; `most` rows, but every chosen layer."""
    rows, chosen = selection["ranking"], selection["layers"]
    shown = [row for place, row in enumerate(rows) if most is None or place < most or row["layer"] in chosen]
    title = "Layers by mean held-out accuracy over timesteps; * is steered"
    table = Table(title=title, box=box.SIMPLE_HEAD, caption=f"{len(shown)} of {len(rows)} layers")
    for title in ("", "accuracy", "kind"):
        table.add_column(title, no_wrap=True)
    table.add_column("layer", overflow="fold")
    for row in shown:
        mark = "*" if row["layer"] in chosen else ""
        table.add_row(mark, f"{row['score']:.3f}", row["kind"].replace("_", "-"), row["layer"])
    Console().print(table)


def print_sweep(title: str, columns: list[str], cells: list[list[str]], left_out: dict[str, str]) -> None:
    """Print one row per evaluated job, and below it the jobs that are left out with the reason."""
    table = Table(title=title, box=box.SIMPLE_HEAD, caption="* on the Pareto front of FD and CLIP-I")
    for column in columns:
        table.add_column(column)
    for row in cells:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for name, reason in left_out.items():
        console.print(f"left out: job {name} {reason}", markup=False, highlight=False)
