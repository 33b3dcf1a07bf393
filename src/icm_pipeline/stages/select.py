"""Rank the layers by their mean held-out accuracy over timesteps and choose those to steer."""

import logging

from icm_pipeline.localization.selection import LayerScore, rank, select_layers
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.scores import SCORES, SELECTION
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.files import write_json
from icm_pipeline.tracking.base import Tracker

log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    layers = context.settings.layers
    table = context.parents["probe"].read_json(SCORES)["layers"]
    scores = [LayerScore(layer, row["kind"], row["score"]) for layer, row in table.items()]
    chosen = select_layers(scores, layers.kind, layers.rule, layers.k, layers.names, layers.seed)
    ranking = rank(scores)
    kinds = {row.kind for row in scores if row.layer in chosen}
    write_json(
        context.folder / SELECTION,
        {
            "layers": chosen,
            "rule": layers.rule,
            "kind": kinds.pop() if len(kinds) == 1 else "mixed",
            "ranking": [{"layer": row.layer, "kind": row.kind, "score": row.score} for row in ranking],
        },
    )
    log.info("select: %s", ", ".join(chosen))


def show(tracker: Tracker, artifact: Artifact) -> None:
    selection = artifact.read_json(SELECTION)
    rows = [
        [place + 1, row["layer"], row["kind"], row["score"], row["layer"] in selection["layers"]]
        for place, row in enumerate(selection["ranking"])
    ]
    tracker.table("select/ranking", ["rank", "layer", "kind", "accuracy", "chosen"], rows)
    tracker.metrics({"select/num_layers": len(selection["layers"])})
