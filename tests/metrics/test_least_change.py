"""Intervals where only images are steered that do not show what they are to: they cover what they should."""

import numpy as np
import pytest

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.methods.assignment import least_change_by_prompt
from icm_pipeline.methods.sparing import least_changed, tried_options
from icm_pipeline.metrics.intervals import bootstrap_interval, paired_change
from icm_pipeline.metrics.least_change import Choosing, means_of_strata, shares_drawn, strata_of

Planted = tuple[Floats, Floats, Ints, Choosing]


def _world(rng: np.random.Generator, num_images: int, obey: float, tries: int = 1) -> Planted:
    """Return what a judge sees before and after of one prompt's images, what they were to show and by what."""
    first, groups = (rng.random(num_images) < 0.8).astype(int), [0] * num_images
    seen = np.clip(first + rng.normal(0, 0.2, num_images), 0.01, 0.99)
    labeler = np.stack([1 - seen, seen], axis=1)
    wanted = least_change_by_prompt(groups, labeler, [0.5, 0.5], int(rng.integers(10**6)))
    shown, obeys = labeler.argmax(1), rng.random(num_images) < obey
    by = Choosing(shown)
    if tries > 1:
        tried = tried_options(groups, shown, wanted, tries, int(rng.integers(10**6)))
        wanted = least_changed(groups, shown, wanted, tried, obeys, rng.random(num_images))
        by = Choosing(shown, tried, obeys)
    last = np.where((wanted != shown) & obeys, wanted, first)
    before, after = (np.eye(2)[labels] * 0.9 + 0.05 for labels in (first, last))
    return before, after, wanted, by


def _truth(worlds: list[Planted]) -> list[float]:
    """Return FD before and after."""
    return [float(np.linalg.norm(np.mean([w[side].mean(0) for w in worlds], axis=0) - 0.5)) for side in (0, 1)]


def test_change_is_covered_as_often_as_it_says_and_quotas_alone_would_not() -> None:
    rng, obey, num_images, prompts = np.random.default_rng(0), 0.7, 48, ["a"] * 48
    worlds = [_world(rng, num_images, obey) for _ in range(400)]
    true = _truth(worlds)
    kept, covered, by_quota = 0, 0, 0
    for before, after, wanted, by in worlds[:200]:
        low, high = bootstrap_interval(after, prompts, 200, rng, strata=wanted, by=by)
        kept += low <= true[1] <= high
        _, (low, high) = paired_change(before, after, prompts, 200, rng, strata=wanted, by=by)
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
    drawn = shares_drawn(wanted, Choosing(shown), 2, 20_000, rng)
    assert drawn.mean(0) == pytest.approx(np.zeros(6), abs=1e-12)
    assert drawn[:, [2, 3, 4, 5]].var() < 1e-6  # all 50 that are to show the commoner option do without steering
    assert drawn[:, 0].var() == pytest.approx(0.3 * 0.7 / 100, rel=0.05)
    assert drawn[:, 0] == pytest.approx(-drawn[:, 1])


def test_images_of_prompts_that_name_an_option_are_one_stratum() -> None:
    unknown, shown = np.full(6, -1), np.array([0, 1, 0, 1, 1, -1])
    assert strata_of(unknown, Choosing(shown)).tolist() == [-1] * 6
    assert not shares_drawn(unknown, Choosing(shown), 2, 10, np.random.default_rng(0)).any()
    assert strata_of(np.array([0, 1, 1]), Choosing(np.array([0, 0, -1]))).tolist() == [0, 4, 4]


def test_a_stratum_without_images_is_taken_for_its_options_others() -> None:
    rows, strata = np.array([[1.0, 0.0], [0.8, 0.2], [0.0, 1.0]]), np.array([0, 0, 4])
    means = means_of_strata(rows, strata, 2)
    alike, other = [0.9, 0.1], [0.0, 1.0]
    assert means[[0, 1, 3, 4]] == pytest.approx(np.array([alike, alike, other, other]))
    assert means[5] == pytest.approx(np.array(alike))  # one that failed to turn shows the other option, as others do


def test_how_many_tries_turn_is_drawn_anew() -> None:
    rng, trials = (
        np.random.default_rng(0),
        [_world(np.random.default_rng(seed), 96, 0.3, tries=3) for seed in range(300)],
    )
    true, prompts, known, unknown = _truth(trials)[1], ["a"] * 96, 0, 0
    for _, after, wanted, by in trials[:150]:
        low, high = bootstrap_interval(after, prompts, 200, rng, strata=wanted, by=by)
        known += low <= true <= high
        low, high = bootstrap_interval(after, prompts, 200, rng, strata=wanted, by=Choosing(by.shown))
        unknown += low <= true <= high
    assert known >= 135
    assert unknown < known


def test_images_that_were_tried_and_did_not_turn_are_a_stratum_of_their_own() -> None:
    wanted, shown = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1])
    by = Choosing(shown, np.array([-1, 0, 0, 0]), np.array([False, True, False, False]))
    assert strata_of(wanted, by).tolist() == [0, 1, 2, 3]
    drawn = shares_drawn(wanted, by, 2, 5000, np.random.default_rng(0))
    assert drawn[:, 2].var() > 0  # the images that fail
    assert not shares_drawn(wanted, Choosing(shown), 2, 5000, np.random.default_rng(0))[:, 2].any()
