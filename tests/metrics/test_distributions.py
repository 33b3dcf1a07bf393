"""Shares over options: parity gap, worst-group share, how far a distribution moved."""

import numpy as np
import pytest

from icm_pipeline.methods.assignment import assign_options
from icm_pipeline.metrics.distributions import mean_shares, parity_gap, quotas, total_variation, worst_share

NAN = float("nan")


@pytest.mark.parametrize(
    ("shares", "gap", "worst"),
    [([0.5, 0.5], 0, 0.5), ([1, 0], 1, 0), ([0.5, 0.3, 0.2], 0.3, 0.2), ([0.4, 0.2], 0.2, 0.2)],
)
def test_the_parity_gap_and_the_worst_share_have_their_hand_values(
    shares: list[float], gap: float, worst: float
) -> None:
    assert parity_gap(np.array(shares)) == pytest.approx(gap)
    assert worst_share(np.array(shares)) == pytest.approx(worst)


def test_what_is_left_over_of_quotas_goes_round_and_of_even_numbers_there_is_nothing() -> None:
    prompts = [prompt for prompt in range(4) for _ in range(6)]
    plain, rotated = (assign_options(prompts, [0.25] * 4, "quota", 1, 0, turn) for turn in (False, True))
    assert np.bincount(plain).tolist() == [8, 8, 4, 4] and np.bincount(rotated).tolist() == [6, 6, 6, 6]
    assert all(np.bincount(rotated[i : i + 6], minlength=4).max() == 2 for i in range(0, 24, 6))
    even = (assign_options(prompts, [0.5] * 2, "quota", 1, 0, turn).tolist() for turn in (False, True))
    assert next(even) == next(even)
    assert quotas(7, [0.5, 0.3, 0.2], 2).tolist() == quotas(7, [0.5, 0.3, 0.2]).tolist()  # no equal remainders


def test_shares_are_the_mean_of_what_was_seen() -> None:
    rows = np.array([[0.8, 0.2], [NAN, NAN], [0.4, 0.6]])
    assert mean_shares(rows) == pytest.approx([0.6, 0.4])


def test_shares_of_nothing_seen_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        mean_shares(np.full((2, 2), NAN))


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [([0.5, 0.5], [0.5, 0.5], 0), ([1, 0], [0, 1], 1), ([0.5, 0.3, 0.2], [0.3, 0.3, 0.4], 0.2)],
)
def test_total_variation_is_the_mass_that_moved(before: list[float], after: list[float], moved: float) -> None:
    assert total_variation(np.array(before), np.array(after)) == pytest.approx(moved)


def test_shares_of_different_options_are_refused() -> None:
    with pytest.raises(ValueError, match="same options"):
        total_variation(np.ones(2) / 2, np.ones(3) / 3)
