"""How rare a maximum is: right where it could be counted, and far beyond, where shuffles do not reach."""

import numpy as np
import pytest

from icm_pipeline.metrics.permutation import tail_probability


def maxima(rng: np.random.Generator, num: int) -> np.ndarray:
    """Return the best of 100 related accuracies of 120 images each, `num` times."""
    shared = rng.standard_normal((num, 1))
    return 0.5 + 0.045 * (0.6 * shared + 0.8 * rng.standard_normal((num, 100))).max(1)


def test_a_maximum_of_nothing_is_rare_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = np.array([tail_probability(float(maxima(rng, 1)[0]), maxima(rng, 100)) for _ in range(400)])
    assert 0.02 <= (found < 0.05).mean() <= 0.08
    assert (found < 0.005).mean() <= 0.015


def test_beyond_all_shuffles_it_is_rarer_than_one_in_their_number() -> None:
    null = maxima(np.random.default_rng(0), 200)
    assert tail_probability(0.9, null) < 1e-6
    assert tail_probability(float(np.median(null)), null) == pytest.approx(0.5, abs=0.01)


def test_a_null_without_spread_gives_no_more_than_it_can() -> None:
    assert tail_probability(0.9, np.full(20, 0.5)) == pytest.approx(1 / 21)
