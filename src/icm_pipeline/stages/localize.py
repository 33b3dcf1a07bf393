"""Hold the other localizers against the probes: one row a layer, and how far their rankings agree."""

import logging

from icm_pipeline.evaluation.localizing import compared
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.report.localizers_page import correlations_table, write_localizers
from icm_pipeline.results.effects import Effects
from icm_pipeline.results.localizers import Contributions, Injections, Localizers, Withheld
from icm_pipeline.results.scores import Scores
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import Tracker

log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    parents, settings = context.parents, context.settings
    scores = Scores.read(parents["probe"])
    injections = Injections.read(parents["inject"]) if "inject" in parents else None
    contributions = Contributions.read(parents["contribution"]) if "contribution" in parents else None
    withheld = Withheld.read(parents["withhold"]) if "withhold" in parents else None
    effects = Effects.read(parents["causal"]) if "causal" in parents else None
    found = compared(scores, injections, contributions, effects)
    found.write(context.folder)
    about = f"{settings.attribute.name.replace('_', ' ')} on {settings.model.name}"
    write_localizers(context.folder, about, found, scores, injections, contributions, withheld)
    for each in found.correlations:
        low, high = each.interval_95
        log.info("localize: %s and %s, rho %.2f (%.2f to %.2f)", each.one, each.other, each.rho, low, high)


def show(tracker: Tracker, artifact: Artifact) -> None:
    titles, *rows = correlations_table(Localizers.read(artifact))
    tracker.table("localize/correlations", [str(title) for title in titles], list(map(list, rows)))
    for name in sorted(artifact.manifest.files):
        if name.endswith(".png"):
            tracker.image(f"localize/{name.removesuffix('.png')}", artifact.path(name))
