"""Localizers held against each other: windows count for their middle, and few or equal figures rank nothing."""

import numpy as np
import pytest

from icm_pipeline.evaluation.localizing import ACCURACY, CONTRIBUTION, STEERED, compared, injection_of
from icm_pipeline.results.effects import Effects, LayerEffect
from icm_pipeline.results.localizers import Contributions, Injections, LayerContribution, WindowEffect
from icm_pipeline.results.scores import Scores
from tests.helpers.results import scores

LAYERS = [f"blocks.{number}.attn2" for number in range(8)]
RANKED = [0.1, 0.5, 0.3, 0.7, 0.2, 0.6, 0.4, 0.8]


def probed(of: list[float] = RANKED) -> Scores:
    rows = {layer: ("cross_attention", value, [value, value]) for layer, value in zip(LAYERS, of, strict=True)}
    return scores({"blocks.0.attn1": ("self_attention", 0.9, [0.9, 0.9]), **rows})


def window(layers: list[str], effect: float) -> WindowEffect:
    return WindowEffect(layers, 0.5 + effect, effect, (effect - 0.1, effect + 0.1), 0.3, 0.9)


def injections(of: list[float], *widths: int) -> Injections:
    windows = [
        window(LAYERS[start : start + width], of[start + (width - 1) // 2])
        for width in widths
        for start in range(len(LAYERS) - width + 1)
    ]
    return Injections(8, 2, 0.5, 0.3, LAYERS, window(LAYERS, 0.4), windows)


def contributions(of: list[float]) -> Contributions:
    return Contributions(
        8, [0, 1], {layer: LayerContribution(x, (x, x), [x, x]) for layer, x in zip(LAYERS, of, strict=True)}
    )


def test_the_same_ranking_correlates_fully_and_the_opposite_one_fully_the_other_way() -> None:
    found = compared(probed(), injections([x / 2 for x in RANKED], 1), contributions([1 - x for x in RANKED]), None)
    rho = {(each.one, each.other): each.rho for each in found.correlations}
    assert found.localizers == [ACCURACY, injection_of(1), CONTRIBUTION]
    assert rho[ACCURACY, injection_of(1)] == pytest.approx(1)
    assert rho[ACCURACY, CONTRIBUTION] == rho[injection_of(1), CONTRIBUTION] == pytest.approx(-1)
    assert list(found.layers) == LAYERS  # of self-attention, text says nothing


def test_windows_count_for_their_middle_and_ends_have_none() -> None:
    found = compared(probed(), injections(RANKED, 3), None, None)
    known = [layer for layer, row in found.layers.items() if injection_of(3) in row]
    assert known == LAYERS[1:-1]
    assert all(found.layers[layer][injection_of(3)] == RANKED[LAYERS.index(layer)] for layer in known)
    assert [each.num_layers for each in found.correlations] == [6]
    assert list(injections(RANKED, 2).by_centre(2)) == LAYERS[:-1]


def test_random_rankings_have_intervals_that_hold_zero_nearly_always() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        found = compared(probed(rng.random(8).tolist()), None, contributions(rng.random(8).tolist()), None)
        (low, high) = found.correlations[0].interval_95
        held.append(low < 0 < high)
    assert np.mean(held) > 0.9


def test_steering_alone_is_held_against_them_where_it_was_measured() -> None:
    effects = Effects(8, {layer: LayerEffect("x", RANKED[i], (0, 1)) for i, layer in enumerate(LAYERS)})
    effects.layers["blocks.0.attn1"] = LayerEffect("self_attention", 0.9, (0, 1))
    found = compared(probed(), None, contributions(RANKED), effects)
    assert found.localizers == [ACCURACY, CONTRIBUTION, STEERED]
    assert [each.rho for each in found.correlations] == pytest.approx([1, 1, 1])
    assert {each.num_layers for each in found.correlations} == {8}


def test_what_cannot_be_ranked_is_told_and_left_out() -> None:
    found = compared(probed(), None, contributions([1.0] * 8), None)
    assert found.correlations == []
    assert "correlate with nothing" in found.left_out[f"{ACCURACY} and {CONTRIBUTION}"]
    few = Contributions(8, [0], {layer: LayerContribution(1, (1, 1), [1]) for layer in LAYERS[:3]})
    assert "takes five" in compared(probed(), None, few, None).left_out[f"{ACCURACY} and {CONTRIBUTION}"]
