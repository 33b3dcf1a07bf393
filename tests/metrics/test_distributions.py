"""Shares over options: parity gap, worst-group share, how far a distribution moved."""

import numpy as np
import pytest

from icm_pipeline.metrics.distributions import mean_shares, parity_gap, total_variation, worst_share

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
