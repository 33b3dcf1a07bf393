"""Draw the figures of one run and a page that shows them: heat map, ranking, grids of twins, FD before and after."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icm_pipeline.images.table import ImageRow, read_table
from icm_pipeline.metrics.intervals import paired_change
from icm_pipeline.metrics.outcomes import hard_labels, one_hot_labels
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.report.figures.accuracy import plot_heat_map, plot_ranking
from icm_pipeline.report.figures.comparison import plot_comparison, plot_discrepancy
from icm_pipeline.report.figures.twins import plot_twins
from icm_pipeline.report.page import write_page
from icm_pipeline.results.comparisons import differences
from icm_pipeline.results.evaluation import METRICS, read_steered
from icm_pipeline.results.scores import SCORES
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import Tracker

log = logging.getLogger(__name__)

IMAGES_PER_PROMPT = 10


def run(context: StageContext) -> None:
    settings, parents, folder = context.settings, context.parents, context.folder
    scores = parents["probe"].read_json(SCORES)
    metrics = parents["evaluate"].read_json(METRICS)
    steered = metrics["steering"]["layers"]
    attribute = settings.attribute.name.replace("_", " ")
    figures: dict[str, Path] = {
        "twins": plot_twins(
            folder / "twins.png",
            *_first_twins(parents),
            f"Above: original. Below: the same seed, steered to the {attribute} named. Orange: judged otherwise.",
            _missed(parents, list(settings.attribute.options)),
        ),
        "discrepancy": plot_discrepancy(folder / "discrepancy.png", metrics),
        "heat_map": plot_heat_map(folder / "heat_map.png", scores, steered, attribute),
        "ranking": plot_ranking(folder / "ranking.png", scores, steered, attribute),
    }
    judged = settings.evaluate
    this, apart = parents["evaluate"], differences(context.compared)
    results = _results(context.compared, apart.told, this, judged.fd, judged.bootstrap, settings.seed)
    if len(results) > 1:
        figures["comparison"] = plot_comparison(folder / "comparison.png", results, this.key)
    own = next(row for row in results if row["key"] == this.key)
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


def _missed(parents: dict[str, Artifact], options: list[str]) -> set[str]:
    """Return the ids of the images that the judge sees another option in than they were steered to."""
    ids = sorted(row.image_id for row in read_table(parents["steer"]))
    judged = read_steered(parents["evaluate"])
    pairs = zip(ids, judged.steered_to, hard_labels(judged.shown), strict=True)
    return {image_id for image_id, wanted, seen in pairs if seen < 0 or options[seen] != wanted}


def _results(
    compared: Sequence[Artifact],
    told: Sequence[Sequence[str]],
    this: Artifact,
    fd: str,
    num_resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return the metrics of evaluations, each with its artifact's key and what sets it apart, similar ones together."""
    results = []
    for artifact, words in zip(compared, told, strict=True):
        metrics = artifact.read_json(METRICS)
        interval = None if artifact.key == this.key else _interval_of_less(artifact, this, fd, num_resamples, seed)
        results.append({**metrics, "key": artifact.key, "told": words, "fd_less_this": interval})
    return sorted(
        results, key=lambda row: json.dumps([row["steering"]["layers"], row["steering"], row["told"]], sort_keys=True)
    )


def _interval_of_less(
    other: Artifact, this: Artifact, fd: str, num_resamples: int, seed: int
) -> tuple[float, float] | None:
    """Return the 95 % interval, over pairs of one seed, of another run's FD less this one's.

    None if they are steered towards different shares, so that their FDs measure different things, or if a prompt has
    no pair that the judge could see.
    """
    steering = [artifact.read_json(METRICS)["steering"] for artifact in (this, other)]
    shares = steering[0]["target_shares"]
    if steering[1]["target_shares"] != shares:
        return None
    sides = [read_steered(artifact) for artifact in (this, other)]
    before, after = (one_hot_labels(side.shown) if fd == "labels" else side.shown for side in sides)
    target, strata = None if shares is None else np.array(shares), None
    if all(how["assignment"] == "quota" for how in steering) and sides[0].steered_to == sides[1].steered_to:
        strata = np.unique(sides[0].steered_to, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    try:
        return paired_change(before, after, sides[0].prompts, num_resamples, rng, target, strata=strata)[1]
    except ValueError as error:
        log.warning("%s beside this run: %s", other.folder.name, error)
        return None
