"""Draw the figures of one run and a page that shows them: heat map, ranking, grids of twins, FD before and after."""

import json
from dataclasses import replace

import numpy as np

from icm_pipeline.evaluation.comparing import fd_less
from icm_pipeline.images.table import ImageRow, read_table
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.report.figures.accuracy import plot_heat_map, plot_ranking
from icm_pipeline.report.figures.comparison import plot_comparison, plot_discrepancy
from icm_pipeline.report.figures.twins import plot_twins
from icm_pipeline.report.page import write_page
from icm_pipeline.results.comparisons import differences, read_compared
from icm_pipeline.results.images import read_steered
from icm_pipeline.results.records import to_json
from icm_pipeline.results.scores import Scores
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import Tracker

IMAGES_PER_PROMPT = 10


def run(context: StageContext) -> None:
    settings, parents, folder = context.settings, context.parents, context.folder
    this, scores = read_compared(parents["evaluate"]), Scores.read(parents["probe"])
    attribute = settings.attribute.name.replace("_", " ")
    figures = {
        "twins": plot_twins(
            folder / "twins.png",
            *_first_twins(parents),
            _title_of_twins(parents["steer"], attribute),
            _missed(parents["evaluate"], list(settings.attribute.options)),
        ),
        "discrepancy": plot_discrepancy(folder / "discrepancy.png", this.evaluation),
        "heat_map": plot_heat_map(folder / "heat_map.png", scores, this.steering.layers, attribute),
        "ranking": plot_ranking(folder / "ranking.png", scores, this.steering.layers, attribute),
    }
    apart, results = differences(context.compared), []
    for artifact, told in zip(context.compared, apart.told, strict=True):
        result = read_compared(artifact, told)
        if result.key != this.key:
            ways = this.steering, result.steering
            result = replace(result, fd_less_this=fd_less(settings, parents["evaluate"], artifact, ways))
        results.append(result)
    results.sort(key=lambda r: json.dumps([r.steering.layers, to_json(r.steering), r.told], sort_keys=True))
    if len(results) > 1:
        figures["comparison"] = plot_comparison(folder / "comparison.png", results, this.key)
    own = next(result for result in results if result.key == this.key)
    write_page(folder / "report.md", own, figures, results, apart.usual)


def show(tracker: Tracker, artifact: Artifact) -> None:
    for name in sorted(artifact.manifest.files):
        if name.endswith(".png"):
            tracker.image(f"report/{name.removesuffix('.png')}", artifact.path(name))


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


def _title_of_twins(steered: Artifact, attribute: str) -> str:
    rows = read_table(steered)
    left = ", or left as it was" if any(row.is_original for row in rows) else ""
    if not any(row.option for row in rows):
        return "Above: original. Below: the same seed, by the changed model, for which no option was drawn."
    return f"Above: original. Below: the same seed, steered to the {attribute} named{left}. Orange: judged otherwise."


def _missed(evaluation: Artifact, options: list[str]) -> set[str]:
    """Return the ids of the images that the judge sees another option in than they were steered to."""
    judged = read_steered(evaluation)
    seen = hard_labels(np.array([image.shown for image in judged.values()]))
    return {
        image_id
        for (image_id, image), label in zip(judged.items(), seen, strict=True)
        if image.steered_to and (label < 0 or options[label] != image.steered_to)
    }
