"""Rank the layers by their mean held-out accuracy over timesteps, or by their effect, and choose those to steer."""

import logging

from icm_pipeline.localization.selection import LayerScore, rank, select_layers
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.effects import Effects
from icm_pipeline.results.scores import Scores, Selection
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import Tracker

log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    layers = context.settings.layers
    probed = Scores.read(context.parents["probe"]).layers
    found = {layer: row.score for layer, row in probed.items()}
    if "causal" in context.parents:
        found = {layer: effect.mean for layer, effect in Effects.read(context.parents["causal"]).layers.items()}
    scores = [LayerScore(layer, probed[layer].kind, score) for layer, score in found.items()]
    chosen = select_layers(scores, layers.kind, layers.rule, layers.k, layers.names, layers.seed)
    kinds = {probed[layer].kind for layer in chosen}
    kind = kinds.pop() if len(kinds) == 1 else "mixed"
    Selection(chosen, layers.rule, kind, rank(scores)).write(context.folder)
    log.info("select: %s", ", ".join(chosen))


def show(tracker: Tracker, artifact: Artifact) -> None:
    selection = Selection.read(artifact)
    rows = [
        [place, row.layer, row.kind, row.score, row.layer in selection.layers]
        for place, row in enumerate(selection.ranking, 1)
    ]
    score = "effect" if selection.rule == "causal" else "accuracy"
    tracker.table("select/ranking", ["rank", "layer", "kind", score, "chosen"], rows)
    tracker.metrics({"select/num_layers": len(selection.layers)})
