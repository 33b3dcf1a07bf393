"""The run's page: the figures with the numbers they show, as Markdown."""

from collections.abc import Sequence
from pathlib import Path

from icm_pipeline.report.rows import COMPARISON, FigureRow, comparison_rows, figure_rows
from icm_pipeline.report.wording import cautions, title_of
from icm_pipeline.results.comparisons import Compared

TITLES = {
    "twins": "Originals and their steered twins (same seeds)",
    "discrepancy": "FD before and after",
    "heat_map": "Probe accuracy over layers and timesteps",
    "ranking": "Layers ranked",
    "comparison": "Beside the other runs with these originals and judges",
}


def write_page(
    path: Path, this: Compared, figures: dict[str, Path], results: Sequence[Compared], usual: Sequence[str]
) -> Path:
    """Write the page beside its figures and return its path.

    results: this evaluation and those it compares to; usual: the settings of most of them.
    """
    steered = ", ".join(f"`{layer}`" for layer in this.steering.layers) or "none"
    lines = [
        f"# {title_of(this.evaluation, this.told)}\n".replace("|", "/"),
        "| | original | steered |\n|---|---|---|",
        *map(_line, figure_rows(this)),
        f"\n{this.evaluation.num_images} images. Steered layers: {steered}.\n",
        *(f"{caution}\n" for caution in cautions(this.evaluation)),
    ]
    for name, figure in figures.items():
        lines += [f"## {TITLES[name]}", "", f"![{TITLES[name]}]({figure.name})", ""]
    if len(results) > 1:
        lines += _comparison(results, usual)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _line(row: FigureRow) -> str:
    strong = "**" if row.is_main else ""
    cells = f"{strong}{row.name}{strong}", row.original, f"{strong}{row.steered}{strong}"
    return f"| {cells[0]} |{f' {cells[1]}' if cells[1] else ''} | {cells[2]} |"


def _comparison(results: Sequence[Compared], usual: Sequence[str]) -> list[str]:
    """Return the table of runs, and below it the settings of most of them."""
    lines = [f"| {' | '.join(COMPARISON)} |", "|---" * len(COMPARISON) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in comparison_rows(results)]
    if usual:
        lines += ["", f"Where a row does not say otherwise: {', '.join(f'`{word}`' for word in usual)}."]
    return lines
