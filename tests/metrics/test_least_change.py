"""Intervals where only images are steered that do not show what they are to: they cover what they should."""

import numpy as np
import pytest

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.methods.assignment import least_change_by_prompt
from icm_pipeline.metrics.intervals import bootstrap_interval, paired_change
from icm_pipeline.metrics.least_change import means_of_strata, shares_drawn, strata_of


def _world(rng: np.random.Generator, num_images: int, obey: float) -> tuple[Floats, Floats, Ints, Ints]:
    """Return what a judge sees before and after of one prompt's images, what they were to show and what they showed."""
    first = (rng.random(num_images) < 0.8).astype(int)
    seen = np.clip(first + rng.normal(0, 0.2, num_images), 0.01, 0.99)
    labeler = np.stack([1 - seen, seen], axis=1)
    wanted = least_change_by_prompt([0] * num_images, labeler, [0.5, 0.5], int(rng.integers(10**6)))
    shown = labeler.argmax(1)
    moved = (wanted != shown) & (rng.random(num_images) < obey)
    last = np.where(moved, wanted, first)
    before, after = (np.eye(2)[labels] * 0.9 + 0.05 for labels in (first, last))
    return before, after, wanted, shown


def test_change_is_covered_as_often_as_it_says_and_quotas_alone_would_not() -> None:
    rng, obey, num_images, prompts = np.random.default_rng(0), 0.7, 48, ["a"] * 48
    worlds = [_world(rng, num_images, obey) for _ in range(400)]
    true = [np.linalg.norm(np.mean([w[side].mean(0) for w in worlds], axis=0) - 0.5) for side in (0, 1)]
    kept, covered, by_quota = 0, 0, 0
    for before, after, wanted, shown in worlds[:200]:
        low, high = bootstrap_interval(after, prompts, 200, rng, strata=wanted, shown=shown)
        kept += low <= true[1] <= high
        _, (low, high) = paired_change(before, after, prompts, 200, rng, strata=wanted, shown=shown)
        covered += low <= true[1] - true[0] <= high
        _, (low, high) = paired_change(before, after, prompts, 200, rng, strata=wanted)
        by_quota += low <= true[1] - true[0] <= high
    assert kept >= 180
    assert covered >= 180
    assert by_quota < covered


def test_numbers_drawn_anew_vary_as_what_images_show_does() -> None:
    rng = np.random.default_rng(0)
    shown = np.array([0] * 30 + [1] * 70)
    wanted = np.array([0] * 30 + [1] * 50 + [0] * 20)
    drawn = shares_drawn(wanted, shown, 2, 20_000, rng)
    assert drawn.mean(0) == pytest.approx(np.zeros(4), abs=1e-12)
    assert drawn[:, [2, 3]].var() < 1e-6  # all 50 that are to show the commoner option do without steering
    assert drawn[:, 0].var() == pytest.approx(0.3 * 0.7 / 100, rel=0.05)
    assert drawn[:, 0] == pytest.approx(-drawn[:, 1])


def test_images_of_prompts_that_name_an_option_are_one_stratum() -> None:
    unknown, shown = np.full(6, -1), np.array([0, 1, 0, 1, 1, -1])
    assert strata_of(unknown, shown).tolist() == [-1] * 6
    assert not shares_drawn(unknown, shown, 2, 10, np.random.default_rng(0)).any()
    assert strata_of(np.array([0, 1, 1]), np.array([0, 0, -1])).tolist() == [0, 3, 3]


def test_a_stratum_without_images_is_taken_for_its_options_others() -> None:
    rows, strata = np.array([[1.0, 0.0], [0.8, 0.2], [0.0, 1.0]]), np.array([0, 0, 3])
    means = means_of_strata(rows, strata, 2)
    assert means == pytest.approx(np.array([[0.9, 0.1], [0.9, 0.1], [0.0, 1.0], [0.0, 1.0]]))
