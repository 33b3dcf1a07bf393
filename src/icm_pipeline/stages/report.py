"""Draw the figures of one run and write its pages: heat map, ranking, grids of twins, FD before and after."""

import json
from dataclasses import replace

from icm_pipeline.evaluation.comparing import fd_less
from icm_pipeline.images.table import ImageRow, read_table
from icm_pipeline.pipeline.asked import is_audited
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.report.figures.accuracy import plot_heat_map, plot_ranking
from icm_pipeline.report.figures.comparison import plot_comparison, plot_discrepancy
from icm_pipeline.report.figures.twins import plot_twins
from icm_pipeline.report.html.run_page import Run, write_run_page
from icm_pipeline.report.page import write_page
from icm_pipeline.results.comparisons import differences, read_compared
from icm_pipeline.results.images import read_steered
from icm_pipeline.results.records import to_json
from icm_pipeline.results.scores import Scores
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import Tracker

PAGE, HTML_PAGE = "report.md", "report.html"
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
            {image_id for image_id, image in read_steered(parents["evaluate"]).items() if image.has_missed},
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
    write_page(folder / PAGE, own, figures, results, apart.usual)
    audit = context.find("audit") if is_audited(settings, "audit") else None
    made = {**parents, **({} if audit is None else {"audit": audit})}
    write_run_page(folder / HTML_PAGE, Run(own, results, apart.usual, made, context.command))


def show(tracker: Tracker, artifact: Artifact) -> None:
    for name in sorted(artifact.manifest.files):
        if name.endswith(".png"):
            tracker.image(f"report/{name.removesuffix('.png')}", artifact.path(name))
    if HTML_PAGE in artifact.manifest.files:  # not in a report that was made before there was one
        tracker.page("report/page", artifact.path(HTML_PAGE))


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
