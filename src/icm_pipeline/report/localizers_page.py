"""The page of the localizers: heat maps side by side, the correlations of their rankings, and tables beside them."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.report.figures.localizers import Panel, plot_correlations, plot_localizers
from icm_pipeline.report.figures.style import short_names
from icm_pipeline.results.localizers import Contributions, Injections, Localizers, Withheld
from icm_pipeline.results.scores import Scores

STEP = "denoising step"
Cells = list[list[str | float]]


def write_localizers(
    folder: Path,
    about: str,
    found: Localizers,
    scores: Scores,
    injections: Injections | None,
    contributions: Contributions | None,
    withheld: Withheld | None = None,
) -> Path:
    """Write figures, tables and the page into a folder; return the page. about: what was localized."""
    layers = list(found.layers)
    panels = panels_of(found, scores, contributions)
    figures = [plot_localizers(folder / "localizers.png", layers, panels, f"Where each localizer finds {about}")]
    if found.correlations:
        figures.append(plot_correlations(folder / "correlations.png", found.localizers, found.correlations))
    rows = layers_table(found)
    _write_csv(folder / "layers.csv", rows)
    _write_csv(folder / "correlations.csv", correlations_table(found))
    lines = [f"# Localizers of {about}", "", *(f"![{path.stem}]({path.name})" for path in figures), ""]
    if injections is not None:
        _write_csv(folder / "windows.csv", injections_table(injections))
        lines += [*_injected(injections), ""]
    if withheld is not None:
        _write_csv(folder / "withheld.csv", withheld_table(withheld))
        lines += [*_withheld(withheld), ""]
    lines += ["## Layers", "", *_markdown(rows), "", "## Rank correlations (Spearman, 95 %)", ""]
    lines += [*_markdown(correlations_table(found)), ""]
    lines += [f"Not compared: {pair}: {why}" for pair, why in found.left_out.items()]
    page = folder / "localizers.md"
    page.write_text("\n".join([*lines, ""]), "utf-8")
    return page


def panels_of(found: Localizers, scores: Scores, contributions: Contributions | None) -> list[Panel]:
    """Return the panels: accuracy by step, contribution by step, and what injection and steering change."""
    layers = list(found.layers)
    accuracy = np.array([scores.layers[layer].accuracy for layer in layers], float)
    steps, chance = [str(step) for step in scores.steps], scores.chance
    panels = [
        Panel("Probe accuracy", accuracy, steps, STEP, "held-out accuracy (from chance)", "viridis", (chance, 1.0))
    ]
    if contributions is not None:
        steps = [str(step) for step in contributions.steps]
        nothing = [np.nan] * len(steps)
        values = np.array(
            [row.by_step if (row := contributions.layers.get(layer)) else nothing for layer in layers], float
        )
        panels.append(
            Panel("Contribution", values, steps, STEP, "norm of what the words add", "magma", (0.0, np.nanmax(values)))
        )
    changing = [name for name in found.localizers if name.startswith("injection") or name == "steered alone"]
    if changing:
        values = _values(found, changing)
        largest = max(0.1, math.ceil(10 * float(np.nanmax(np.abs(values)))) / 10)  # so that the bar's ticks reach it
        columns = [name.replace("injection, ", "").replace("steered alone", "pushed") for name in changing]
        title = "Injection" if "pushed" not in columns else "Injection and steering"
        windows = [column if column == "1 layer" else f"{column} (centre)" for column in columns if column != "pushed"]
        asked = [f"injected: {', '.join(windows)}"] * bool(windows) + ["pushed alone"] * ("pushed" in columns)
        below = "\n".join(asked)
        scale = "change of the option's probability"
        panels.append(Panel(title, values, columns, below, scale, "RdBu_r", (-largest, largest), is_numbered=True))
    return panels


def layers_table(found: Localizers) -> Cells:
    """Return titles and a row a layer."""
    names = found.localizers
    rows: Cells = [["layer", *names]]
    return rows + [[layer, *(row.get(name, "") for name in names)] for layer, row in found.layers.items()]


def correlations_table(found: Localizers) -> Cells:
    """Return titles and a row a pair."""
    rows: Cells = [["one", "other", "rho", "low", "high", "layers"]]
    return rows + [[e.one, e.other, e.rho, *e.interval_95, e.num_layers] for e in found.correlations]


def injections_table(found: Injections) -> Cells:
    """Return titles and a row a window, those of none and of all layers first."""
    rows: Cells = [["layers", "num_layers", "share", "effect", "low", "high", "fd", "clip_i"]]
    rows.append(["none", 0, found.share, 0.0, 0.0, 0.0, found.fd, 1.0])
    for each in (found.everywhere, *found.windows):
        name = "all" if each is found.everywhere else " ".join(each.layers)
        rows.append([name, len(each.layers), each.share, each.effect, *each.interval_95, each.fd, each.clip_i])
    return rows


def withheld_table(found: Withheld) -> Cells:
    """Return titles and a row a set of layers that were not told of the option, that of none first."""
    rows: Cells = [["not told", "share", "effect", "low", "high", "clip_i", "layers"]]
    if found.share is not None:
        rows.append(["none", found.share, 0.0, 0.0, 0.0, 1.0, ""])
    for name, each in found.sets.items():
        rows.append([name, each.share, each.effect, *each.interval_95, each.clip_i, " ".join(each.layers)])
    return rows


def _withheld(found: Withheld) -> list[str]:
    """Return what images lose where layers are not told of the option, in Markdown, layers by their short names."""
    if found.why_not:
        return ["## Withheld", "", f"Nothing was withheld: {found.why_not}"]
    layers = found.sets["all"].layers
    short = dict(zip(layers, short_names(layers), strict=True))
    titles, *rows = withheld_table(found)
    named = [[short[each] for each in str(row[-1]).split()] for row in rows]
    told = [", ".join(own) if len(own) < len(layers) else "every one" for own in named]
    table: Cells = [titles, *([*row[:-1], own] for row, own in zip(rows, told, strict=True))]
    about = f"{found.num_images} images of prompts that name an option for each row."
    return ["## Withheld", "", about, "", *_markdown(table)]


def _injected(found: Injections) -> list[str]:
    """Return what injection did, in Markdown, windows by the short names of their layers."""
    short = dict(zip(found.layers, short_names(found.layers), strict=True))
    titles, *rows = injections_table(found)
    named = [", ".join(short.get(layer, layer) for layer in str(row[0]).split()) for row in rows]
    told = f"{found.num_images} images of {found.num_subjects} subjects for each row."
    table: Cells = [titles, *([name, *row[1:]] for name, row in zip(named, rows, strict=True))]
    return ["## Injection", "", told, "", *_markdown(table)]


def _values(found: Localizers, names: Sequence[str]) -> Floats:
    return np.array([[row.get(name, np.nan) for name in names] for row in found.layers.values()], float)


def _markdown(rows: Cells) -> list[str]:
    cells = [[f"{cell:z.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    titles, *rest = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells]
    return [titles, "|" + "---|" * len(rows[0]), *rest]


def _write_csv(path: Path, rows: Cells) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
