"""FD: hand values, unseen images, intervals that cover, and the floor a perfect steerer cannot pass."""

import numpy as np
import pytest

from icm_pipeline.methods.assignment import assign_options
from icm_pipeline.metrics.fairness import deviation_ratio, discrepancy_by_prompt, expected_floor, fairness_discrepancy
from icm_pipeline.metrics.intervals import bootstrap_interval, paired_change

NAN = float("nan")


def one_hot(labels: list[int] | np.ndarray, num_options: int) -> np.ndarray:
    return np.eye(num_options)[labels]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1, 0], [0, 1]], 0.0),
        ([[1, 0], [1, 0]], np.sqrt(0.5)),
        ([[1, 0], [1, 0], [1, 0], [0, 1]], np.sqrt(2) / 4),
        ([[0.8, 0.2], [0.6, 0.4]], 0.2 * np.sqrt(2)),
        ([[1, 0, 0]], np.sqrt(2 / 3)),
        ([[1, 0, 0, 0], [0, 1, 0, 0]], 0.5),
        ([[0.2, 0.2]], 0.3 * np.sqrt(2)),  # mass on dropped groups is not given back (the paper's mode)
    ],
)
def test_fd_is_the_distance_of_the_mean_from_uniform(rows: list[list[float]], expected: float) -> None:
    assert fairness_discrepancy(np.array(rows, float)) == pytest.approx(expected)


def test_fd_averages_probabilities_and_not_hard_labels() -> None:
    assert fairness_discrepancy(np.array([[0.6, 0.4], [0.6, 0.4]])) == pytest.approx(0.1 * np.sqrt(2))


def test_a_target_replaces_uniform() -> None:
    rows = one_hot([0, 0, 0, 1], 2)
    assert fairness_discrepancy(rows, np.array([0.75, 0.25])) == pytest.approx(0)
    assert fairness_discrepancy(rows, np.array([0.25, 0.75])) == pytest.approx(0.5 * np.sqrt(2))


def test_images_the_judge_could_not_see_are_left_out() -> None:
    rows = np.array([[1, 0], [NAN, NAN], [0, 1], [NAN, NAN], [NAN, NAN]])
    assert fairness_discrepancy(rows) == 0.0


def test_a_prompt_of_which_the_judge_saw_nothing_is_named() -> None:
    rows = np.array([[1, 0], [NAN, NAN]])
    with pytest.raises(ValueError, match=r"'a nurse'.*at least one image"):
        discrepancy_by_prompt(rows, ["a doctor", "a nurse"])


def test_fd_of_nothing_seen_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        fairness_discrepancy(np.full((3, 2), NAN))


def test_every_prompt_has_its_own_fd_in_order_of_appearance() -> None:
    rows = one_hot([0, 1, 0, 0], 2)
    found = discrepancy_by_prompt(rows, ["nurse", "doctor", "nurse", "doctor"])
    assert list(found) == ["nurse", "doctor"]
    assert found == pytest.approx({"nurse": np.sqrt(0.5), "doctor": 0.0})


def test_opposite_prompts_do_not_cancel() -> None:
    rows, prompts = one_hot([0, 0, 1, 1], 2), ["a", "a", "b", "b"]
    assert fairness_discrepancy(rows) == 0
    assert np.mean(list(discrepancy_by_prompt(rows, prompts).values())) == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize(("num_options", "floor"), [(2, 0.099), (3, 0.128), (4, 0.141)])
def test_the_floor_of_one_draw_per_batch_is_the_protocols(num_options: int, floor: float) -> None:
    shares = np.full(num_options, 1 / num_options)
    found = expected_floor(512, shares, "batch", 16, np.random.default_rng(0), num_draws=20_000)
    assert found == pytest.approx(floor, abs=0.0015)


def test_a_draw_per_batch_of_interleaved_prompts_has_the_protocols_floor() -> None:
    prompts = np.arange(4 * 512) % 4
    reached = [
        fairness_discrepancy(one_hot(assign_options(prompts.tolist(), [0.5, 0.5], "batch", 16, seed)[prompts == 1], 2))
        for seed in range(1000)
    ]
    assert np.mean(reached) == pytest.approx(0.099, abs=0.008)


def test_the_floor_of_one_draw_per_image_is_the_protocols() -> None:
    found = expected_floor(512, np.full(2, 0.5), "image", 16, np.random.default_rng(0), num_draws=20_000)
    assert found == pytest.approx(0.025, abs=0.0005)


def test_the_floor_of_batches_of_one_is_that_of_draws_per_image() -> None:
    shares = np.array([0.2, 0.8])
    batch, image = (
        expected_floor(100, shares, how, 1, np.random.default_rng(0), num_draws=20_000) for how in ("batch", "image")
    )
    assert batch == pytest.approx(image, rel=0.03)


def test_a_shorter_last_batch_counts_as_short() -> None:
    found = expected_floor(3, np.full(2, 0.5), "batch", 2, np.random.default_rng(0), num_draws=40_000)
    assert found == pytest.approx((0.5 + 1 / 6) / 2 * np.sqrt(2), rel=0.02)  # 3:0 or 2:1, half the time each


@pytest.mark.parametrize(
    ("shares", "ratio"), [([0.5, 0.5], 0.0), ([1.0, 0.0], 1.0), ([0.8, 0.2], 0.6), ([0.5, 0.25, 0.25], 0.25)]
)
def test_the_deviation_ratio_has_its_hand_values_and_of_two_options_it_is_fd_of_labels(
    shares: list[float], ratio: float
) -> None:
    assert deviation_ratio(np.array(shares)) == pytest.approx(ratio)
    if len(shares) == 2:
        assert np.linalg.norm(np.array(shares) - 0.5) * np.sqrt(2) == pytest.approx(ratio)


def test_exact_quotas_have_no_floor_where_they_divide() -> None:
    assert expected_floor(40, np.full(4, 0.25), "quota", 16, np.random.default_rng(0)) == 0.0


def test_the_floor_of_quotas_is_their_rounding() -> None:
    found = expected_floor(5, np.full(2, 0.5), "quota", 16, np.random.default_rng(0))
    assert found == pytest.approx(0.1 * np.sqrt(2))


@pytest.mark.parametrize("how", ["quota", "image", "batch"])
@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.2, 0.3, 0.5]])
def test_the_floor_is_what_an_obedient_steerer_reaches_with_that_assignment(how: str, shares: list[float]) -> None:
    target = np.array(shares)
    reached = [
        fairness_discrepancy(one_hot(assign_options([0] * 50, shares, how, 8, seed).tolist(), len(shares)), target)
        for seed in range(1500)
    ]
    floor = expected_floor(50, target, how, 8, np.random.default_rng(0))
    assert np.mean(reached) == pytest.approx(floor, rel=0.06, abs=1e-9)


def test_the_interval_covers_the_true_discrepancy_about_as_often_as_it_says() -> None:
    true = 0.3 * np.sqrt(2)  # 80 % of images show the first option
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        rows = one_hot((rng.random(100) > 0.8).astype(int).tolist(), 2)
        low, high = bootstrap_interval(rows, ["p"] * 100, 200, rng)
        covered += low <= true <= high
    assert 86 <= covered <= 100


@pytest.mark.parametrize("obedience", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("num_options", [2, 4])
def test_the_intervals_of_a_steered_set_with_quotas_cover_about_as_often_as_they_say(
    num_options: int, obedience: float
) -> None:
    shares = np.array([0.55, *np.full(num_options - 1, 0.45 / (num_options - 1))])
    distance = float(np.linalg.norm(shares - 1 / num_options))
    wanted, prompts = np.tile(np.arange(num_options), 24), [p for p in "abcd" for _ in range(6 * num_options)]
    covered, covered_change = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = rng.choice(num_options, len(wanted), p=shares)
        steered = np.where(rng.random(len(wanted)) < obedience, wanted, rng.choice(num_options, len(wanted), p=shares))
        before, after = np.eye(num_options)[labels], np.eye(num_options)[steered]
        low, high = bootstrap_interval(after, prompts, 200, rng, strata=wanted)
        covered += low <= (1 - obedience) * distance <= high
        _, (low, high) = paired_change(before, after, prompts, 200, rng, strata=wanted)
        covered_change += low <= -obedience * distance <= high
    assert min(covered, covered_change) >= 52  # of 60; 95 % are 57


def test_the_interval_of_an_even_sample_reaches_down_to_zero_and_up() -> None:
    low, high = bootstrap_interval(one_hot([0, 1] * 50, 2), ["p"] * 100, 400, np.random.default_rng(0))
    assert low == 0
    assert 0.05 < high < 0.2


def test_where_no_image_failed_the_interval_reaches_to_what_few_failures_would_give() -> None:
    after, prompts, wanted = one_hot([0, 1] * 96, 2), ["a"] * 96 + ["b"] * 96, np.array([0, 1] * 96)
    low, high = bootstrap_interval(after, prompts, 4000, np.random.default_rng(0), strata=wanted)
    assert low == 0
    assert high == pytest.approx(np.sqrt(2) * 3.69 / 192, rel=0.1)  # of 3.69 failures 2.5 % of sets would show none


def test_rare_failures_are_covered() -> None:
    wanted, prompts = np.tile([0, 1], 48), list("aaaabbbbccccdddd") * 6
    rng, rate, covered = np.random.default_rng(0), 0.01, 0
    for _ in range(100):
        shown = np.where((rng.random(96) < rate) & (wanted == 1), 0, wanted)
        low, high = bootstrap_interval(one_hot(shown, 2), prompts, 200, rng, strata=wanted)
        covered += low <= np.sqrt(0.5) * rate <= high
    assert covered >= 90  # of 100; two of three sets show no failure


def test_perfect_obedience_to_quotas_leaves_little_doubt_but_that_of_the_originals() -> None:
    after, prompts = one_hot([0, 1] * 12, 2), ["p"] * 24
    before = one_hot([0] * 20 + [1] * 4, 2)
    strata, rng = np.array([0, 1] * 12), np.random.default_rng(0)
    change, (low, high) = paired_change(before, after, prompts, 400, rng, strata=strata)
    assert low < change < high < 0
    assert change == pytest.approx(-np.sqrt(2) * 8 / 24)


def test_a_change_that_no_resample_varies_has_the_doubt_of_failures_too_few_to_be_seen() -> None:
    before, after, wanted = one_hot([0] * 24, 2), one_hot([0, 1] * 12, 2), np.array([0, 1] * 12)
    change, (low, high) = paired_change(before, after, ["p"] * 24, 400, np.random.default_rng(0), strata=wanted)
    assert low == pytest.approx(change) == pytest.approx(-np.sqrt(0.5))
    assert 0.1 < high - change < 0.3
    same = paired_change(after, after, ["p"] * 24, 400, np.random.default_rng(0), strata=wanted)
    assert same == (0.0, (0.0, 0.0))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_options", [2, 4])
def test_an_interval_contains_its_figure(num_options: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = (one_hot(rng.integers(0, num_options, 48).tolist(), num_options) for _ in range(2))
    prompts = ["a", "b", "c", "d"] * 12
    low, high = bootstrap_interval(after, prompts, 100, rng)
    assert low <= np.mean(list(discrepancy_by_prompt(after, prompts).values())) <= high
    change, (low, high) = paired_change(before, after, prompts, 100, rng)
    assert low <= change <= high


def test_an_interval_holds_no_fd_that_cannot_be() -> None:
    rng, rows = np.random.default_rng(0), np.eye(2)[[0] * 11 + [1]]
    low, high = bootstrap_interval(rows, ["a"] * 12, 500, rng)
    assert 0 < low < high == pytest.approx(np.sqrt(0.5))  # all of one option
    target = np.array([0.9, 0.1])
    low, high = bootstrap_interval(np.eye(2)[[1] * 11 + [0]], ["a"] * 12, 500, rng, target)
    assert high == pytest.approx(0.9 * np.sqrt(2))


def test_a_lower_level_covers_less_often() -> None:
    rows = one_hot([0] * 80 + [1] * 20, 2)
    wide, narrow = (
        bootstrap_interval(rows, ["p"] * 100, 1000, np.random.default_rng(0), level=level) for level in (0.95, 0.5)
    )
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_interval_surrounds_the_figure_of_several_prompts() -> None:
    rng = np.random.default_rng(0)
    rows = one_hot((rng.random(200) > 0.8).astype(int).tolist(), 2)
    prompts = ["a", "b"] * 100
    low, high = bootstrap_interval(rows, prompts, 500, rng)
    assert low < np.mean(list(discrepancy_by_prompt(rows, prompts).values())) < high


def test_images_are_resampled_within_their_prompt() -> None:
    rows, prompts = one_hot([0] * 20 + [1] * 20, 2), ["a"] * 20 + ["b"] * 20
    interval = bootstrap_interval(rows, prompts, 50, np.random.default_rng(0))
    assert interval == pytest.approx((np.sqrt(0.5), np.sqrt(0.5)))


def test_the_interval_knows_the_target() -> None:
    rows = one_hot([0] * 30, 2)
    assert bootstrap_interval(rows, ["p"] * 30, 20, np.random.default_rng(0), np.array([1.0, 0.0])) == (0.0, 0.0)


def test_the_interval_does_not_fail_for_a_prompt_of_which_little_was_seen() -> None:
    rows = np.vstack([np.full((5, 2), NAN), [[1.0, 0.0]]])
    low, high = bootstrap_interval(rows, ["p"] * 6, 200, np.random.default_rng(0))
    assert (low, high) == pytest.approx((0.0, np.sqrt(0.5)))  # one image says nothing of others


def twins(num_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two sides that differ in one image of ten, of which the first option is shown by 80 %."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(num_images) > 0.8).astype(int)
    changed = np.where(rng.random(num_images) < 0.1, 1, labels)
    return one_hot(labels.tolist(), 2), one_hot(changed.tolist(), 2)


def test_the_change_is_the_difference_of_both_figures() -> None:
    before, after = twins(60, 0)
    prompts = ["a", "b", "c"] * 20
    change, (low, high) = paired_change(before, after, prompts, 200, np.random.default_rng(0))
    figures = [np.mean(list(discrepancy_by_prompt(side, prompts).values())) for side in (before, after)]
    assert change == pytest.approx(figures[1] - figures[0])
    assert low <= change <= high


def test_nothing_changed_has_an_interval_of_zero_width() -> None:
    before, _ = twins(60, 0)
    assert paired_change(before, before, ["a"] * 60, 100, np.random.default_rng(0)) == (0.0, (0.0, 0.0))


def test_resampling_pairs_is_sharper_than_resampling_both_sides_apart() -> None:
    before, after = twins(200, 1)
    _, (low, high) = paired_change(before, after, ["p"] * 200, 1000, np.random.default_rng(0))
    _, (low_apart, high_apart) = paired_change(
        before, np.random.default_rng(5).permutation(after), ["p"] * 200, 1000, np.random.default_rng(0)
    )
    assert high - low < 0.6 * (high_apart - low_apart)


def test_the_interval_of_the_change_covers_about_as_often_as_it_says() -> None:
    true = np.sqrt(2) * (0.72 - 0.8)  # the first option's share falls from 80 % to 72 %
    covered = 0
    for seed in range(100):
        before, after = twins(150, seed)
        _, (low, high) = paired_change(before, after, ["p"] * 150, 200, np.random.default_rng(0))
        covered += low <= true <= high
    assert 86 <= covered <= 100


def test_a_pair_that_was_not_seen_on_one_side_says_nothing_about_the_change() -> None:
    before, after = one_hot([0, 0, 1], 2), one_hot([0, 1, 0], 2)
    after[2] = NAN
    change, _ = paired_change(before, after, ["p"] * 3, 50, np.random.default_rng(0))
    assert change == pytest.approx(-np.sqrt(0.5))
    with pytest.raises(ValueError, match="'p'"):
        paired_change(before[2:], after[2:], ["p"], 50, np.random.default_rng(0))


def test_sides_of_different_shape_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="equally many"):
        paired_change(one_hot([0, 1], 2), one_hot([0], 2), ["p", "p"], 10, np.random.default_rng(0))
