"""Means over arms that share some of their images: errors that are right, and shares of FD that are FD's."""

import numpy as np
import pytest

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.metrics.arms import ArmsMean, arms_mean, discrepancy_parts, place_among, post_stratified
from icm_pipeline.metrics.fairness import discrepancy_by_prompt

REPETITIONS = 200
Sizes = tuple[int, int, int]
FULL, QUICK, DIRECTIONS, WORST, SHORT = (384, 40, 24), (192, 40, 12), (384, 40, 12), (384, 1, 384), (96, 12, 12)


def cells(sizes: Sizes, rng: np.random.Generator, image: float, arm: float, rest: float) -> tuple[Floats, Ints]:
    """Return values [arms, n] of mean 0 with planted deviations, in arms that take images in turns, and the strata."""
    num, arms, each = sizes
    strata = np.arange(num) % 8
    values = rng.normal(0, image, num) + rng.normal(0, rest, (arms, num)) + rng.normal(0, arm, (arms, 1))
    values += np.linspace(-0.2, 0.2, 8)[strata]
    there = (np.arange(num) - each * np.arange(arms)[:, None]) % num < each
    return np.where(there, values, np.nan), strata


@pytest.mark.parametrize("sizes", [FULL, QUICK, DIRECTIONS, SHORT])
@pytest.mark.parametrize(("image", "arm", "rest"), [(0.4, 0.1, 0.4), (0.5, 0.0, 0.1), (0.0, 0.2, 0.5)])
def test_the_interval_of_a_mean_over_arms_covers_the_truth(sizes: Sizes, image: float, arm: float, rest: float) -> None:
    rng = np.random.default_rng(0)
    found = [arms_mean(*cells(sizes, rng, image, arm, rest)).estimate for _ in range(REPETITIONS)]
    covered = np.mean([low <= 0 <= high for low, high in (each.interval_95 for each in found)])
    assert 0.92 <= covered <= 1
    errors = np.sqrt(np.mean([each.error**2 for each in found]))
    assert errors / np.std([each.value for each in found]) == pytest.approx(1.05, abs=0.15)


def test_arms_of_the_same_images_are_no_surer_than_these_images() -> None:
    """As many pushes of the leading few images as of images in turns: here the images decide, however many arms."""
    rng, num = np.random.default_rng(1), 24
    strata, image = np.arange(num) % 8, rng.normal(0, 0.5, num)
    same = arms_mean(image + rng.normal(0, 0.1, (40, num)), strata).estimate.error
    in_turns = arms_mean(*cells(FULL, rng, 0.5, 0.0, 0.1)).estimate.error
    assert same > 2 * in_turns


def test_one_arm_has_the_error_of_its_images_within_strata() -> None:
    values, strata = cells(WORST, np.random.default_rng(2), 0.0, 0.0, 1.0)
    assert arms_mean(values, strata).estimate.error == pytest.approx(1 / np.sqrt(384), rel=0.1)
    apart = values + 3 * (strata % 2)
    assert arms_mean(apart, strata).estimate.error == pytest.approx(arms_mean(values, strata).estimate.error)
    assert arms_mean(apart, np.zeros(384, int)).estimate.error > 1.5 / np.sqrt(384)


def test_values_that_are_all_alike_have_the_error_that_one_image_hides_and_empty_arms_do_not_count() -> None:
    values = np.vstack([np.ones((3, 20)), np.full((1, 20), np.nan)])
    found = arms_mean(values, np.arange(20) % 4)
    assert (found.value, found.estimate.error, len(found.arms)) == (1.0, 1 / 20, 3)


def test_how_much_arms_differ_is_told_from_how_much_their_images_do() -> None:
    rng = np.random.default_rng(3)
    alike = np.mean([arms_mean(*cells(FULL, rng, 0.3, 0.0, 0.4)).deviation ** 2 for _ in range(50)])
    unlike = np.mean([arms_mean(*cells(FULL, rng, 0.3, 0.2, 0.4)).deviation ** 2 for _ in range(50)])
    assert np.sqrt(alike) < 0.06 and np.sqrt(unlike) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("lead", [0.0, 0.15, 0.25])
def test_the_interval_of_a_place_among_arms_covers_the_truth(lead: float) -> None:
    rng, deviation, covered = np.random.default_rng(4), 0.1, []
    truth = {0.0: 0.5, 0.15: 0.9332, 0.25: 0.9938}[lead]
    for _ in range(150):
        values, strata = cells(FULL, rng, 0.2, deviation, 0.35)
        led = arms_mean(values + lead, strata)
        low, high = place_among(led, led, 0.5, 1000, rng).interval_95
        covered.append(low <= truth <= high)
    assert 0.92 <= np.mean(covered) <= 1


def test_what_leads_no_arm_or_every_arm_has_that_place() -> None:
    rng, means = np.random.default_rng(5), np.linspace(-0.1, 0.1, 40)
    leads = (ArmsMean(means + lead, 1e-5, float(means.var() / 40), 1e-6, 384, 8) for lead in (0.4, 0.0, -0.4))
    best, average, last = (place_among(lead, lead, 0.5, 4000, rng) for lead in leads)
    assert best.value > 0.99 and best.interval_95[0] > 0.95 and best.p < 1e-4
    assert average.value == pytest.approx(0.5) and average.p == pytest.approx(0.5, abs=0.05)
    assert last.interval_95[1] < 0.05 and last.p > 0.99


def test_parts_of_fd_have_fd_as_their_mean_and_none_where_nothing_is_seen() -> None:
    rng = np.random.default_rng(6)
    shown, prompts, wanted = rng.dirichlet([1, 1, 1], 24), np.arange(24) % 4, np.arange(24) // 4 % 3
    shown[3] = np.nan
    parts = discrepancy_parts(shown, prompts, wanted)
    even = discrepancy_by_prompt(shown, [str(prompt) for prompt in prompts])
    assert np.flatnonzero(np.isnan(parts)).tolist() == [3]
    seen = prompts[np.isfinite(parts)]
    known = [name for name in range(3)]  # the prompts of which every image was seen, their options in equal shares
    assert [np.mean(parts[prompts == name]) for name in known] == pytest.approx([np.nanmean(parts)] * 3)
    goal = np.array([np.linalg.norm(np.nanmean((shown - np.eye(3)[wanted])[prompts == p], 0)) for p in np.unique(seen)])
    assert np.nanmean(parts) == pytest.approx(goal.mean())
    assert goal[:3] == pytest.approx([even[str(name)] for name in known])
    obeyed = discrepancy_parts(np.eye(3)[wanted], prompts, wanted)
    assert np.abs(obeyed).max() == 0
    assert np.isnan(discrepancy_parts(np.full((4, 2), np.nan), np.zeros(4, int), np.zeros(4, int))).all()


def test_the_spread_of_parts_is_the_error_of_fd() -> None:
    rng, fds, errors = np.random.default_rng(7), [], []
    prompts, wanted = np.arange(200) % 4, np.arange(200) // 4 % 2
    for _ in range(300):
        shown = np.eye(2)[np.where(rng.random(200) < 0.5, wanted, 0)]
        parts = discrepancy_parts(shown, prompts, wanted)
        fds.append(parts.mean())
        errors.append(arms_mean(parts[None], prompts * 2 + wanted).estimate.error)
    assert np.mean(errors) / np.std(fds) == pytest.approx(1, abs=0.15)


def test_a_mean_over_arms_of_which_nothing_is_seen_is_none() -> None:
    found = arms_mean(np.full((3, 6), np.nan), np.zeros(6, int))
    assert np.isnan([found.value, found.estimate.value, *found.estimate.interval_95, found.estimate.p_above(0)]).all()
    assert (found.num_images, len(found.arms)) == (0, 0)
    one = np.where(np.arange(6) < 1, [[0.5], [0.5], [np.nan]], np.nan)
    assert arms_mean(one, np.zeros(6, int)).estimate.value == 0.5


def test_groups_of_images_count_in_every_arm_as_often_as_in_all() -> None:
    """Arms that are alike, but for having more or fewer images of a group that is obeyed less."""
    rng, plain, stratified = np.random.default_rng(8), [], []
    groups = rng.integers(2, size=384)
    for _ in range(40):
        values, strata = cells(FULL, rng, 0.0, 0.0, 0.3)
        plain.append(arms_mean(values + groups, strata).deviation)
        stratified.append(arms_mean(post_stratified(values + groups, groups), strata).deviation)
        found = post_stratified(values + groups, groups)
        means = [np.nanmean(np.where(groups == group, values[0] + group, np.nan)) for group in (0, 1)]
        assert np.nanmean(found[0]) == pytest.approx(np.array([1 - groups.mean(), groups.mean()]) @ means)
    assert np.mean(stratified) < 0.03 and np.mean(plain) < 0.1


def test_the_interval_of_a_mean_over_arms_with_groups_covers_the_truth() -> None:
    rng, covered, errors, values = np.random.default_rng(9), [], [], []
    for _ in range(REPETITIONS):
        groups = np.random.default_rng(10).integers(2, size=384)
        cell, strata = cells(FULL, rng, 0.3, 0.1, 0.4)
        found = arms_mean(post_stratified(cell + groups, groups), strata).estimate
        low, high = found.interval_95
        covered.append(low <= groups.mean() <= high)
        errors.append(found.error)
        values.append(found.value)
    assert 0.92 <= np.mean(covered) <= 1
    assert np.mean(errors) / np.std(values) == pytest.approx(1.05, abs=0.15)


def test_an_arm_with_fewer_than_two_images_of_a_group_stays_as_it_is() -> None:
    values, groups = np.array([[1.0, 2.0, np.nan, np.nan], [1.0, 2.0, 4.0, 3.0]]), np.array([0, 0, 1, 1])
    found = post_stratified(values, groups)
    assert np.array_equal(found[0], values[0], equal_nan=True)
    assert found[1].mean() == pytest.approx(2.5)
