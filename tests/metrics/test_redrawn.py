"""Figures of resampled images are those of the images, and correlations cover planted truths."""

import numpy as np
import pytest

from icm_pipeline.metrics.fairness import discrepancy_by_prompt
from icm_pipeline.metrics.redrawn import discrepancies, drawn_again, estimated, rank_correlation, share_of

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
