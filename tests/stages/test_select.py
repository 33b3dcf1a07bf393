"""The select stage: the layers of a rule with its own seed, and the ranking of all."""

from collections.abc import Callable
from pathlib import Path

import pytest

from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.scores import Selection
from icm_pipeline.stages import select
from tests.helpers.results import as_artifact, scores

Compose = Callable[..., Settings]
SCORE_OF = {"a.attn1": 0.6, "b.attn1": 0.9, "c.attn1": 0.7, "d.attn1": 0.8, "a.attn2": 0.95, "b.attn2": 0.5}
Choose = Callable[..., Selection]


@pytest.fixture
def choose(settings_with: Compose, tmp_path: Path) -> Choose:
    """Give a function that runs the stage on scores made by hand."""
    kinds = {"attn1": "self_attention", "attn2": "cross_attention"}
    scores({layer: (kinds[layer[2:]], score, []) for layer, score in SCORE_OF.items()}).write(tmp_path)
    parent = as_artifact(tmp_path, "", Selection.FILE)

    def chosen(*words: str) -> Selection:
        select.run(StageContext(settings_with(*words), {"probe": parent}, tmp_path))
        return Selection.read(parent)

    return chosen


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        (["layers.k=2"], ["b.attn1", "d.attn1"]),
        (["layers.k=1", "layers.kind=cross_attention"], ["a.attn2"]),
        (["layers.k=2", "layers.rule=worst"], ["a.attn1", "c.attn1"]),
        (["layers.rule=all"], ["b.attn1", "d.attn1", "c.attn1", "a.attn1"]),
        (["layers.rule=named", "layers.names=[c.attn1,b.attn2]"], ["c.attn1", "b.attn2"]),
    ],
)
def test_the_layers_are_those_of_the_rule(choose: Choose, words: list[str], layers: list[str]) -> None:
    found = choose("layers.kind=self_attention", *words)
    assert found.layers == layers
    kinds = {layer[2:] for layer in layers}
    expected = {"attn1": "self_attention", "attn2": "cross_attention"}[kinds.pop()] if len(kinds) == 1 else "mixed"
    assert found.kind == expected


def test_random_layers_are_drawn_by_their_own_seed(choose: Choose) -> None:
    words = ("layers.rule=random", "layers.kind=self_attention", "layers.k=2")
    drawn = [tuple(choose(*words, f"layers.seed={seed}", "seed=0").layers) for seed in (0, 0, *range(1, 12))]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 2
    assert choose(*words, "layers.seed=3", "seed=9").layers == choose(*words, "layers.seed=3", "seed=0").layers


def test_the_ranking_has_every_layer_from_best_to_worst(choose: Choose) -> None:
    found = choose("layers.k=1").ranking
    assert {row.layer: row.score for row in found} == SCORE_OF
    assert [row.score for row in found] == sorted(SCORE_OF.values(), reverse=True)
