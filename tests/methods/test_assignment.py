"""Assignment: quotas are exact, draws follow their shares, batches stay together."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icm_pipeline.arrays import Ints
from icm_pipeline.methods.assignment import assign_options, least_change, least_change_by_prompt
from icm_pipeline.metrics.outcomes import hard_labels


@st.composite
def shares(draw: st.DrawFn) -> list[float]:
    weights = draw(st.lists(st.integers(0, 10), min_size=2, max_size=6).filter(any))
    return [weight / sum(weights) for weight in weights]


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=4), wanted=shares(), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_quotas_are_exact_to_the_rounding_for_every_prompt(counts: list[int], wanted: list[float], seed: int) -> None:
    prompts = [prompt for prompt, count in enumerate(counts) for _ in range(count)]
    options = assign_options(prompts, wanted, "quota", 8, seed)
    for prompt, count in enumerate(counts):
        given_to = np.bincount(options[np.array(prompts) == prompt], minlength=len(wanted))
        assert given_to.sum() == count
        assert (np.abs(given_to - count * np.array(wanted)) < 1).all()


@given(num_options=st.integers(2, 6), each=st.integers(1, 20), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_uniform_quotas_give_every_option_equally_many(num_options: int, each: int, seed: int) -> None:
    options = assign_options([0] * num_options * each, [1 / num_options] * num_options, "quota", 8, seed)
    assert np.bincount(options).tolist() == [each] * num_options


def test_quotas_hold_for_interleaved_prompts() -> None:
    prompts = [0, 1, 2, 3] * 10
    options = assign_options(prompts, [0.5, 0.5], "quota", 8, 0)
    assert all((options[np.array(prompts) == prompt] == 0).sum() == 5 for prompt in range(4))


def test_quotas_come_in_random_order() -> None:
    options = assign_options([0] * 40, [0.5, 0.5], "quota", 8, 0)
    assert 5 < (np.diff(options) != 0).sum() < 35


def test_an_option_without_a_share_is_given_to_nobody() -> None:
    for how in ("quota", "image", "batch"):
        assert set(assign_options([0] * 50, [0.0, 0.6, 0.4], how, 4, 0)) <= {1, 2}


def test_draws_per_image_follow_the_shares() -> None:
    options = assign_options([0] * 20_000, [0.2, 0.3, 0.5], "image", 8, 0)
    np.testing.assert_allclose(np.bincount(options) / 20_000, [0.2, 0.3, 0.5], atol=0.015)


def test_draws_per_image_are_not_exact() -> None:
    counts = [(assign_options([0] * 100, [0.5, 0.5], "image", 8, seed) == 0).sum() for seed in range(20)]
    assert len(set(counts)) > 1


def test_a_batch_shares_one_option() -> None:
    options = assign_options([0] * 43, [0.5, 0.5], "batch", 8, 0)
    assert len(options) == 43
    assert all(len(set(options[start : start + 8])) == 1 for start in range(0, 43, 8))
    assert len(set(options)) == 2


def test_a_draw_is_shared_by_images_of_one_prompt_also_where_prompts_are_interleaved() -> None:
    prompts = np.arange(4 * 64) % 4
    options = assign_options(prompts.tolist(), [0.5, 0.5], "batch", 16, 0)
    draws = [options[prompts == prompt].reshape(4, 16) for prompt in range(4)]
    assert all((of_prompt == of_prompt[:, :1]).all() for of_prompt in draws)
    assert len({tuple(of_prompt[:, 0]) for of_prompt in draws}) > 1


def test_draws_per_batch_follow_the_shares() -> None:
    options = assign_options([0] * 40_000, [0.2, 0.8], "batch", 4, 0)
    assert abs((options == 0).mean() - 0.2) < 0.02


@pytest.mark.parametrize("how", ["quota", "image", "batch"])
def test_the_seed_decides(how: str) -> None:
    first, again, other = (assign_options([0] * 64, [0.5, 0.5], how, 4, seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_an_unknown_way_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="quota, least_change, image, batch"):
        assign_options([0], [0.5, 0.5], "always", 8, 0)


def test_the_least_change_is_refused_where_nothing_says_what_images_show() -> None:
    with pytest.raises(ValueError, match="least_change goes by what images show: call least_change_by_prompt"):
        assign_options([0], [0.5, 0.5], "least_change", 8, 0)


def _bounds(num_images: int, num_options: int) -> tuple[Ints, Ints]:
    exact = num_images / num_options
    return np.full(num_options, math.floor(exact)), np.full(num_options, math.ceil(exact))


@given(data=st.data(), num_options=st.integers(2, 3), num_images=st.integers(1, 6), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_no_assignment_within_the_bounds_changes_fewer_images_or_likelier_ones(
    data: st.DataObject, num_options: int, num_images: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    seen = rng.dirichlet([0.5] * num_options, num_images)
    seen[rng.random(num_images) < 0.2] = np.nan
    lower = np.array(data.draw(st.lists(st.integers(0, 2), min_size=num_options, max_size=num_options)))
    upper = lower + np.array(data.draw(st.lists(st.integers(0, 4), min_size=num_options, max_size=num_options)))
    if not lower.sum() <= num_images <= upper.sum():
        with pytest.raises(ValueError, match="cannot be divided"):
            least_change(seen, lower, upper, rng)
        return
    labels = hard_labels(seen)

    def cost(options: Sequence[int]) -> tuple[int, float]:
        own = np.nan_to_num(seen)[np.arange(num_images), options]
        return int((labels != np.array(options)).sum()), -float(own.sum())

    every = itertools.product(range(num_options), repeat=num_images)
    counts = {options: np.bincount(options, minlength=num_options) for options in every}
    best = min(cost(o) for o, count in counts.items() if (lower <= count).all() and (count <= upper).all())
    found = least_change(seen, lower, upper, rng)
    assert tuple(found) in counts
    assert (lower <= counts[tuple(found)]).all() and (counts[tuple(found)] <= upper).all()
    assert cost(found)[0] == best[0]
    assert cost(found)[1] == pytest.approx(best[1], abs=1e-5)


def test_of_two_options_those_change_that_show_theirs_least_surely() -> None:
    seen = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.99, 0.01], [0.2, 0.8]])
    options = least_change(seen, *_bounds(6, 2), np.random.default_rng(0))
    assert options.tolist() == [0, 0, 1, 1, 0, 1]


def test_equal_images_are_told_apart_by_the_seed_alone() -> None:
    seen = np.tile([[0.9, 0.1]], (12, 1))
    found = [least_change_by_prompt([0] * 12, seen, [0.5, 0.5], seed).tolist() for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_every_prompt_gets_its_shares_and_what_cannot_be_told_fills_up() -> None:
    prompts = [0, 1] * 4
    seen = np.array([[0.9, 0.1], [np.nan, np.nan]] * 4)
    seen[0] = [0.4, 0.6]
    options = least_change_by_prompt(prompts, seen, [0.75, 0.25], 0)
    assert options[::2].tolist() == [1, 0, 0, 0]
    assert np.bincount(options[1::2]).tolist() == [3, 1]
