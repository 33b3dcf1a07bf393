"""Are two rankings the same: shares of the best, Kendall's tau, and intervals over halvings that cover."""

import numpy as np
import pytest

from icm_pipeline.metrics.ranking import best_of, over_halvings, overlap, tau

SCORES = np.array([0.9, 0.6, 0.8, 0.5])


def test_equal_rankings_share_everything() -> None:
    assert overlap(SCORES, SCORES + 1, 2) == 1
    assert tau(SCORES, SCORES + 1) == 1


def test_opposite_rankings_share_nothing() -> None:
    assert overlap(SCORES, -SCORES, 2) == 0
    assert tau(SCORES, -SCORES) == -1


def test_of_equal_scores_the_first_are_best() -> None:
    assert best_of(np.array([0.5, 0.7, 0.7, 0.5]), 3).tolist() == [1, 2, 0]


def test_a_ranking_of_equal_scores_is_related_to_none() -> None:
    assert tau(np.zeros(4), SCORES) == 0


@pytest.mark.parametrize("spread", [0.0, 0.08])
def test_intervals_over_halvings_cover_what_halves_agree_on(spread: float) -> None:
    """Of layers that tell equally much, and of layers that do not."""
    rng, layers, images = np.random.default_rng(0), 10, 160
    accuracies = 0.7 + spread * np.linspace(-1, 1, layers)

    def halving(right: np.ndarray) -> float:
        order = rng.permutation(images)
        return tau(*(right[:, half].mean(1) for half in (order[: images // 2], order[images // 2 :])))

    def drawn() -> np.ndarray:
        return rng.random((layers, images)) < accuracies[:, None]

    truth = float(np.mean([halving(drawn()) for _ in range(600)]))
    hits = 0
    for _ in range(200):
        right = drawn()
        low, high = over_halvings(np.array([halving(right) for _ in range(20)])).interval_95
        hits += low <= truth <= high
    assert hits / 200 >= 0.9
