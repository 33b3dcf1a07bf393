"""Assignment: quotas are exact, draws follow their shares, batches stay together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icm_pipeline.methods.assignment import assign_options


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
    with pytest.raises(ValueError, match="quota, image, batch"):
        assign_options([0], [0.5, 0.5], "always", 8, 0)
