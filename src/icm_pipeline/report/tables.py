"""Tables on the terminal; light, so that a run with nothing to do prints its result at once."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from icm_pipeline.report.wording import cautions, title_of
from icm_pipeline.results.evaluation import Change, Discrepancy, Evaluation, mean_of
from icm_pipeline.results.scores import Selection
from icm_pipeline.text import count_text, without_shared

LONGEST_PROMPT = 36  # characters in a line of a narrow terminal


def print_metrics(evaluation: Evaluation) -> None:
    """Print the table of one evaluation, originals beside steered; what was not measured has no row."""
    fair, reference, agreement = evaluation.fairness, evaluation.reference, evaluation.agreement
    before, after, steering = fair.fd_original, fair.fd, evaluation.steering
    prompts, shared = list(after.by_prompt), ""
    if max(map(len, prompts), default=0) > LONGEST_PROMPT:
        prompts, shared = without_shared(prompts)
    table = Table(title=escape(title_of(evaluation)), caption=escape(f"...: {shared}") if shared else None)
    for column in ("", "original", "steered" if steering else "images"):
        table.add_column(column, justify="left" if not column else "right", overflow="fold")

    def add(name: str, before: float | str | None, after: float | str | None, form: str = "z.3f") -> None:
        """Add a row unless both are None; a text stands as it is."""
        cells = [f"{value:{form}}" if isinstance(value, int | float) else value or "" for value in (before, after)]
        if any(cells):
            table.add_row(escape(name), *cells)

    for name, (prompt, value) in zip(prompts, after.by_prompt.items(), strict=True):
        add(f"FD  {'... ' if shared else ''}{name}", before.by_prompt.get(prompt) if before else None, value)
    table.add_section()
    add("FD  mean", mean_of(before), f"[bold]{after.mean:.3f}[/bold]")
    add("    95 % interval", _interval(before), _interval(after))
    add(f"    of a perfect steerer ({steering.assignment})" if steering else "    if all obeyed", None, fair.fd_floor)
    add("    change, 95 % interval of pairs", None, _interval(fair.fd_change, "+z"))
    add("share of the rarest option", mean_of(fair.worst_share_original), fair.worst_share.mean, ".1%")
    table.add_section()
    add("CLIP-I", None, evaluation.clip_i)
    add("CLIP-T", evaluation.clip_t_original, evaluation.clip_t)
    if reference:
        add("FID", reference.fid_original, reference.fid)
        add("KID", reference.kid_original, reference.kid)
    add("show the option they were steered to", None, evaluation.obeyed, ".1%")
    add("left as they were", None, evaluation.left_alone, ".1%")
    for name, share in evaluation.kept.items():
        add(f"kept their {name.replace('_', ' ')}", None, share, ".1%")
    if agreement:
        original = agreement.original.share if agreement.original else None
        add("two judges agree", original, agreement.steered.share, ".1%")
    lost = {side: len(problems or ()) or None for side, problems in (evaluation.lost.unreadable or {}).items()}
    unseen = {side: number or None for side, number in evaluation.unseen.items()}
    add("cannot be read", lost.get("reference"), lost.get("images"), "d")
    add("judge saw no option", unseen.get("originals"), unseen.get("steered"), "d")
    add("have no twin", None, len(evaluation.lost.without_twin or ()) or None, "d")
    Console().print(table)
    for caution in cautions(evaluation):
        Console().print(caution, markup=False, highlight=False)


def _interval(figure: Discrepancy | Change | None, sign: str = "") -> str | None:
    return None if figure is None else " to ".join(f"{limit:{sign}.3f}" for limit in figure.interval_95)


def print_ranking(selection: Selection, most: int | None = None) -> None:
    """Print the layers, best first, with the chosen ones marked; `most` rows, but every chosen layer."""
    rows, chosen = selection.ranking, selection.layers
    shown = [row for place, row in enumerate(rows) if most is None or place < most or row.layer in chosen]
    is_causal = selection.rule == "causal"
    score = "effect" if is_causal else "accuracy"
    by = "what pushing each alone does" if is_causal else "mean held-out accuracy over timesteps"
    heading = f"Layers by {by}; * is steered"
    caption = f"{len(shown)} of {count_text(len(rows), 'layer')}"
    table = Table(title=heading, box=box.SIMPLE_HEAD, caption=caption, padding=0, show_edge=False)
    for title in ("", score, "layer", "kind"):
        table.add_column(title, no_wrap=True, min_width=1)
    for row in shown:
        mark = "*" if row.layer in chosen else ""
        table.add_row(mark, f"{row.score:.3f}", escape(row.layer), row.kind.replace("_", "-"))
    needed = Console(width=500).measure(table).maximum
    Console(width=max(needed, Console().width)).print(table)  # no layer's name is cut or folded


def print_sweep(
    title: str, columns: list[str], cells: list[list[str]], left_out: dict[str, str], cautions: Sequence[str] = ()
) -> None:
    """Print one row per evaluated job, and below it cautions and the jobs that are left out with the reason."""
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, caption="* on the Pareto front of FD and CLIP-I")
    for column in columns:
        table.add_column(escape(column), overflow="fold")
    for row in cells:
        table.add_row(*map(escape, row))
    Console().print(table)
    for caution in cautions:
        Console().print(caution, markup=False, highlight=False)
    for name, reason in left_out.items():
        Console().print(f"left out: job {name} {reason}", markup=False, highlight=False)
