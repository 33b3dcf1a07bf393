"""Intervals of what probes tell: they cover, prompts count as one, and luck in choosing the best layer does not."""

import numpy as np
import pytest

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.metrics.resampling import (
    Estimate,
    balanced_means,
    best_on_other_half,
    clustered,
    pseudo_values,
)

LABELS = np.repeat([0, 1], [90, 30])


def of_prompts(rng: np.random.Generator, spread: float) -> tuple[Floats, Ints, Ints]:
    """Return whether 160 images of 40 prompts were told right, prompts differing, with labels and prompts."""
    prompts = np.repeat(np.arange(40), 4)
    chances = np.clip(0.7 + spread * rng.standard_normal(40), 0, 1)
    return (rng.random(160) < chances[prompts]).astype(float), rng.integers(2, size=160), prompts


def test_a_balanced_mean_counts_every_option_alike() -> None:
    values = np.where(LABELS == 0, 1.0, 0.5)
    assert balanced_means(values, LABELS) == pytest.approx(0.75)
    assert values.mean() > 0.8


@pytest.mark.parametrize("spread", [0.0, 0.15])
def test_intervals_cover_the_truth_also_where_images_of_a_prompt_are_alike(spread: float) -> None:
    rng, hits = np.random.default_rng(0), 0
    truth = np.clip(0.7 + spread * np.random.default_rng(1).standard_normal(100_000), 0, 1).mean()
    for _ in range(300):
        values, labels, prompts = of_prompts(rng, spread)
        (found,) = clustered(values[None], labels, prompts, 200, rng, 1.0)
        low, high = found.interval_95
        hits += low <= truth <= high
    assert 0.9 <= hits / 300 <= 0.99


def test_images_of_one_prompt_taken_for_independent_make_intervals_too_short() -> None:
    rng, ratios = np.random.default_rng(0), list[float]()
    for _ in range(20):
        values, labels, prompts = of_prompts(rng, 0.3)
        (honest,) = clustered(values[None], labels, prompts, 200, rng)
        (naive,) = clustered(values[None], labels, np.arange(160), 200, rng)
        ratios.append(honest.error / naive.error)
    assert np.mean(ratios) > 1.1


def test_intervals_of_what_probes_tell_are_the_wider_for_their_shared_training_images() -> None:
    values, labels, prompts = of_prompts(np.random.default_rng(0), 0.1)
    (plain,) = clustered(values[None], labels, prompts, 500, np.random.default_rng(1), 1.0)
    (of_probes,) = clustered(values[None], labels, prompts, 500, np.random.default_rng(1))
    assert of_probes.error == pytest.approx(plain.error * np.sqrt(1.5))


def test_images_that_were_never_held_out_do_not_count() -> None:
    values = np.where(LABELS == 0, 1.0, 0.5)
    values[:10] = np.nan
    (found,) = clustered(values[None], LABELS, np.arange(120), 50, np.random.default_rng(0))
    assert (found.value, found.num) == (pytest.approx(0.75), 110)


def test_the_best_row_is_not_better_for_its_luck() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.random((50, 200)) < 0.5).astype(float)
    labels = np.arange(200) % 2
    assert balanced_means(rows, labels).max() > 0.57
    found = best_on_other_half(rows, labels, np.arange(200), 20, rng)
    assert abs(balanced_means(found, labels) - 0.5) < 0.05


def test_a_row_that_is_truly_best_is_found_with_what_it_gives() -> None:
    rng, labels = np.random.default_rng(0), np.arange(200) % 2
    rows = (rng.random((5, 200)) < 0.5).astype(float)
    rows[3] = rng.random(200) < 0.95
    taken = np.broadcast_to(np.arange(5.0)[:, None], (5, 200))
    assert (best_on_other_half(rows, labels, np.arange(200), 4, rng, taken) == 3).all()


def test_numbers_for_pairs_have_the_mean_and_the_error_of_what_they_stand_for() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(120) + LABELS
    pairs = pseudo_values(values, LABELS)
    assert pairs.mean() == pytest.approx(balanced_means(values, LABELS))
    (whole,) = clustered(values[None], LABELS, np.arange(120), 2000, rng)
    (paired,) = clustered(pairs[None], np.zeros(120, int), np.arange(120), 2000, rng)
    assert paired.error == pytest.approx(whole.error, rel=0.1)


def test_a_difference_of_independent_figures_is_less_sure_than_each() -> None:
    assert Estimate(0.9, 0.03, 50).less(Estimate(0.5, 0.04, 30)) == Estimate(0.4, 0.05, 30)


def test_p_is_small_only_where_the_null_is_far_below() -> None:
    found = Estimate(0.7, 0.05, 40)
    assert found.p_above(0.5) < 0.001
    assert found.p_above(0.7) == pytest.approx(0.5)
    assert Estimate(0.5, 0.0, 40).p_above(0.5) == 1
