"""Tables on the terminal; light, so that a run with nothing to do prints its result at once."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print the table of one evaluation, originals beside steered."""
    table = Table(
        title=f"{metrics['attribute']} on {metrics['model']}, alpha {metrics['alpha']:g} ({metrics['alpha_unit']})"
    )
    for title in ("", "original", "steered"):
        table.add_column(title, justify="left" if not title else "right")
    for prompt, value in metrics["fd_original"]["by_prompt"].items():
        table.add_row(f"FD  {prompt}", f"{value:.3f}", f"{metrics['fd']['by_prompt'][prompt]:.3f}")
    original, steered = metrics["fd_original"], metrics["fd"]
    table.add_section()
    table.add_row("FD  mean", f"{original['mean']:.3f}", f"[bold]{steered['mean']:.3f}[/bold]")
    table.add_row("    95 % interval", *("{:.3f} to {:.3f}".format(*row["interval_95"]) for row in (original, steered)))
    table.add_row(f"    of a perfect steerer ({metrics['assignment']})", "", f"{metrics['fd_floor']:.3f}")
    table.add_section()
    table.add_row("CLIP-I", "", f"{metrics['clip_i']:.3f}")
    table.add_row("show the option they were steered to", "", f"{metrics['obeyed']:.1%}")
    for name, value in metrics["kept"].items():
        table.add_row(f"kept their {name.replace('_', ' ')}", "", f"{value:.1%}")
    Console().print(table)


def print_ranking(ranking: list[tuple[str, str, float]], chosen: list[str]) -> None:
    """Print (layer, kind, accuracy) rows, best first, with the chosen layers marked."""
    table = Table(title="Layers by mean held-out accuracy over timesteps", box=box.SIMPLE_HEAD)
    for title in ("", "accuracy", "kind"):
        table.add_column(title, no_wrap=True)
    table.add_column("layer", overflow="fold")
    for layer, kind, score in ranking:
        table.add_row("*" if layer in chosen else "", f"{score:.3f}", kind.replace("_", "-"), layer)
    Console().print(table)
