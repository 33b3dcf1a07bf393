"""Rank the layers by their mean held-out accuracy over timesteps and choose those to steer."""

import logging

from rich.console import Console
from rich.table import Table

from icm_pipeline.artifacts import write_json
from icm_pipeline.pipeline import StageContext
from icm_pipeline.selection import LayerScore, rank, select_layers

log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    layers = context.settings.layers
    table = context.parents["probe"].read_json("scores.json")["layers"]
    scores = [LayerScore(layer, row["kind"], row["score"]) for layer, row in table.items()]
    chosen = select_layers(scores, layers.kind, layers.rule, layers.k, layers.names, layers.seed)
    ranking = rank(scores)
    _print_ranking(ranking, chosen)
    write_json(
        context.folder / "selection.json",
        {
            "layers": chosen,
            "rule": layers.rule,
            "kind": layers.kind,
            "ranking": [{"layer": row.layer, "kind": row.kind, "score": row.score} for row in ranking],
        },
    )
    log.info("select: %s", ", ".join(chosen))
    rows = [[row.layer, row.kind, row.score, row.layer in chosen] for row in ranking]
    context.tracker.table("select/ranking", ["layer", "kind", "accuracy", "chosen"], rows)


def _print_ranking(ranking: list[LayerScore], chosen: list[str]) -> None:
    table = Table(title="Layers by mean held-out accuracy over timesteps")
    for title in ("", "layer", "kind", "accuracy"):
        table.add_column(title, justify="right" if title == "accuracy" else "left")
    for row in ranking:
        table.add_row("*" if row.layer in chosen else "", row.layer, row.kind, f"{row.score:.3f}")
    Console().print(table)
