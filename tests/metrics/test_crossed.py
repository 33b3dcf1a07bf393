"""Intervals of differences between arms of the same images cover planted truths."""

import numpy as np
import pytest

from icm_pipeline.arrays import Floats
from icm_pipeline.metrics.crossed import discrepancies, drawn_again, estimated, rank_correlation, share_of
from icm_pipeline.metrics.fairness import discrepancy_by_prompt

REPETITIONS = 200


def test_weights_are_one_on_average_and_resample_within_strata() -> None:
    strata = np.array([0] * 6 + [1] * 4 + [2])
    weights = drawn_again(strata, 4000, np.random.default_rng(0))
    assert np.allclose(weights[:, :6].sum(1), 6) and np.allclose(weights[:, 6:10].sum(1), 4)
    assert np.allclose(weights.mean(0), 1, atol=0.1)
    assert (weights[:, 10] == 1).all()


def test_the_deviation_of_a_resampled_mean_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(size=12)
    drawn = share_of(values, drawn_again(np.zeros(12, int), 20_000, np.random.default_rng(2)))
    assert drawn.std() == pytest.approx(values.std(ddof=1) / np.sqrt(12), rel=0.03)


def test_fd_of_resamples_is_that_of_the_images_where_all_count_once_and_blind_images_do_not() -> None:
    rng = np.random.default_rng(0)
    shown = rng.dirichlet([1, 1, 1], (2, 20))
    shown[0, 3] = np.nan
    prompts = np.arange(20) % 4
    found = discrepancies(shown, prompts, np.full(3, 1 / 3), np.ones((1, 20)))
    for arm in range(2):
        by_prompt = discrepancy_by_prompt(shown[arm], [str(prompt) for prompt in prompts])
        assert found[arm, 0] == pytest.approx(np.mean(list(by_prompt.values())))


def arms_of(gain: float, rng: np.random.Generator, num_sets: int = 20, n: int = 48) -> tuple[Floats, Floats]:
    """Return images [n] that obey at the selected layers and at random sets [S, n]: images and sets differ."""
    easy = rng.normal(0, 0.15, n)
    rates = np.clip(0.5 + rng.normal(0, 0.08, num_sets)[:, None] + easy, 0.02, 0.98)
    ours = np.clip(0.5 + gain + easy, 0.02, 0.98)
    return (rng.random(n) < ours).astype(float), (rng.random((num_sets, n)) < rates).astype(float)


def interval_of(gain: float, rng: np.random.Generator) -> tuple[float, float]:
    ours, theirs = arms_of(gain, rng)
    images, sets = drawn_again(np.arange(48) % 8, 200, rng), drawn_again(np.zeros(20, int), 200, rng)
    resampled = share_of(ours, images) - (sets * share_of(theirs, images).T).mean(1)
    return estimated(float(ours.mean() - theirs.mean()), resampled, 20).interval_95


@pytest.mark.parametrize("gain", [0.0, 0.2, 0.4])
def test_the_interval_of_a_lead_over_random_sets_covers_the_truth(gain: float) -> None:
    rng = np.random.default_rng(5)
    easy, own = rng.normal(0, 0.15, 40_000), rng.normal(0, 0.08, 40_000)
    truth = np.mean(np.clip(0.5 + gain + easy, 0.02, 0.98) - np.clip(0.5 + own + easy, 0.02, 0.98))
    covered = [low <= truth <= high for low, high in (interval_of(gain, rng) for _ in range(REPETITIONS))]
    assert 0.92 <= np.mean(covered) <= 1


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_interval_of_a_rank_correlation_covers_the_truth(rho: float) -> None:
    rng, covered = np.random.default_rng(7), []
    truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of a normal pair
    for _ in range(REPETITIONS):
        pair = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 12)
        low, high = rank_correlation(pair[:, 0], pair[:, 1])[1].interval_95
        covered.append(np.tanh(low) <= truth <= np.tanh(high))
    assert 0.92 <= np.mean(covered) <= 1


@pytest.mark.parametrize(("values", "message"), [([1.0, 2, 3, 4], "5|five"), ([2.0] * 6, "all the same")])
def test_correlations_that_mean_nothing_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_correlation(values, list(range(len(values))))


def test_an_error_is_at_least_what_chance_alone_can_hide() -> None:
    assert estimated(1.0, np.ones(10), 20, 0.05).error == 0.05


def test_shares_of_resamples_stay_near_what_can_be_where_images_are_not_seen() -> None:
    values = np.array([1.0, 0, np.nan, np.nan, np.nan, 1, np.nan, 0])
    drawn = share_of(values, drawn_again(np.arange(8) // 2, 4000, np.random.default_rng(0)))
    assert drawn.mean() == pytest.approx(0.5, abs=0.05)
    assert drawn.min() > -0.5 and drawn.max() < 1.5
    assert np.isnan(share_of(np.full(4, np.nan), np.ones((1, 4)))).all()


def test_fd_can_be_held_against_shares_of_each_prompt() -> None:
    shown, prompts = np.eye(2)[[0, 0, 0, 1]], np.array([0, 0, 1, 1])
    own = np.array([[1.0, 0], [0.5, 0.5]])
    assert discrepancies(shown, prompts, own, np.ones((1, 4)))[0] == 0
    assert discrepancies(shown, prompts, own[1], np.ones((1, 4)))[0] == pytest.approx(np.sqrt(0.5) / 2)
