"""Draw the figures of one run and a page that shows them: heat map, ranking, grids of twins, FD before and after."""

import json
from pathlib import Path
from typing import Any

from icm_pipeline.artifacts import Artifact
from icm_pipeline.image_sets import ImageRow, read_table
from icm_pipeline.plots.accuracy import plot_heat_map, plot_ranking
from icm_pipeline.plots.comparison import plot_comparison, plot_discrepancy
from icm_pipeline.plots.grid import plot_twins
from icm_pipeline.plots.page import write_page
from icm_pipeline.stage_table import StageContext

IMAGES_PER_PROMPT = 10


def run(context: StageContext) -> None:
    settings, parents, folder = context.settings, context.parents, context.folder
    scores = parents["probe"].read_json("scores.json")
    selection = parents["select"].read_json("selection.json")
    metrics = parents["evaluate"].read_json("metrics.json")
    attribute = settings.attribute.name.replace("_", " ")
    figures: dict[str, Path] = {
        "twins": plot_twins(
            folder / "twins.png",
            *_first_twins(parents),
            f"Above: original. Below: the same seed, steered to the {attribute} named under it.",
        ),
        "discrepancy": plot_discrepancy(folder / "discrepancy.png", metrics),
        "heat_map": plot_heat_map(folder / "heat_map.png", scores, selection["layers"], attribute),
        "ranking": plot_ranking(folder / "ranking.png", scores, selection["layers"], attribute),
    }
    results = _results(context.compared)
    if len(results) > 1:
        figures["comparison"] = plot_comparison(folder / "comparison.png", results, parents["evaluate"].key)
    write_page(folder / "report.md", metrics, selection, figures, results)


def _first_twins(parents: dict[str, Artifact]) -> tuple[list[ImageRow], list[ImageRow]]:
    """Return the first images of every prompt, steered rows and their originals, prompt by prompt."""
    rows = read_table(parents["steer"])
    originals = {row.image_id: row for row in read_table(parents["originals"])}
    chosen = [
        row
        for prompt in dict.fromkeys(row.prompt for row in rows)
        for row in [r for r in rows if r.prompt == prompt][:IMAGES_PER_PROMPT]
    ]
    return chosen, [originals[row.image_id] for row in chosen]


def _results(compared: tuple[Artifact, ...]) -> list[dict[str, Any]]:
    """Return the metrics of evaluations, each with its artifact's key, similar ways of steering side by side."""
    results = [{**artifact.read_json("metrics.json"), "key": artifact.key} for artifact in compared]
    return sorted(results, key=lambda row: json.dumps([row["steering"]["layers"], row["steering"]], sort_keys=True))
