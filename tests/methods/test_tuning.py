"""The search for alpha finds a planted threshold within its images, and says where it could not."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from icm_pipeline.methods.tuning import (
    FARTHEST,
    MOST_IMAGES,
    NEAREST,
    PRECISION,
    Tuned,
    budget_for,
    smallest_alpha,
)

WANTED, START, SCALE = 0.95, 7.0, 0.15


def planted(middle: float, seed: int, num_images: int, ceiling: float = 1.0) -> list[float]:
    """Return the alpha at which each image turns: shares over alphas are a logistic curve of log alpha."""
    rng = np.random.default_rng(seed)
    turns = middle * np.exp(SCALE * rng.logistic(size=num_images))
    return np.where(rng.random(num_images) < ceiling, turns, math.inf).tolist()


def answers(turns: Sequence[float]) -> Callable[[float, Sequence[int]], list[bool]]:
    return lambda alpha, chosen: [turns[i] <= alpha for i in chosen]


def share_at(alpha: float, middle: float) -> float:
    return 1 / (1 + math.exp(-math.log(alpha / middle) / SCALE))


def searched(middle: float, seed: int, ceiling: float = 1.0) -> Tuned:
    budget = budget_for(2)
    turns = planted(middle, seed, budget.num_candidates, ceiling)
    return smallest_alpha(answers(turns), len(turns), START, WANTED, budget.num_steered)


@pytest.mark.parametrize("middle", [1.0, 3.0, 4.5, 7.0])
def test_the_alpha_of_a_planted_curve_is_found(middle: float) -> None:
    found = [searched(middle, seed) for seed in range(200)]
    shares = [share_at(tuned.alpha, middle) for tuned in found]
    assert np.mean(shares) == pytest.approx(WANTED, abs=0.02)
    assert np.mean([abs(share - WANTED) < 0.08 for share in shares]) > 0.93
    assert np.mean([tuned.reached for tuned in found]) > 0.93  # a stubborn image may lie beyond the farthest


def test_a_search_stays_within_its_images_and_seldom_needs_all() -> None:
    budget = budget_for(2)
    made = [searched(middle, seed).made for middle in (3.0, 4.5, 7.0) for seed in range(100)]
    assert max(made) <= budget.num_steered
    assert np.mean(made) < budget.num_steered - 5
    assert min(made) < 0.7 * budget.num_steered


@pytest.mark.parametrize("num_options", [2, 3, 4, 7])
def test_all_options_share_the_images(num_options: int) -> None:
    budget = budget_for(num_options)
    assert budget.num_unsteered + num_options * budget.num_steered <= budget.most == MOST_IMAGES
    assert budget.num_candidates >= 8
    assert budget.num_unsteered * (num_options - 1) / num_options >= 1.15 * budget.num_candidates


def test_pictures_that_break_beyond_the_models_alpha_do_not_count_as_turned() -> None:
    """At 7 most images turn, beyond 9 some turn back: no larger alpha is taken."""
    turns = planted(4.0, 1, 30)
    turns[:4] = [math.inf] * 4

    def flips(alpha: float, chosen: Sequence[int]) -> list[bool]:
        return [turns[i] <= alpha and not (alpha > 9 and i % 3 == 0) for i in chosen]

    tuned = smallest_alpha(flips, 30, START, WANTED, most=500)
    assert tuned.alpha <= START
    assert (tuned.share, tuned.reached) == (sum(at <= START for at in turns) / 30, False)


@pytest.mark.parametrize("seed", range(20))
def test_the_answer_is_that_of_trying_every_image_at_every_alpha(seed: int) -> None:
    turns = planted(4.0, seed, 30)
    tuned = smallest_alpha(answers(turns), 30, START, 0.9, most=10_000)
    exact = sorted(turns)[26]  # 27 of 30
    assert exact <= tuned.alpha <= exact * PRECISION
    assert 0.9 <= tuned.share <= sum(at <= tuned.alpha for at in turns) / 30
    assert tuned.made < 4 * 30


def test_no_image_is_made_twice_at_an_alpha_or_where_its_answer_is_known() -> None:
    turns, seen = planted(3.0, 0, 30), dict[int, list[tuple[float, bool]]]()

    def flips(alpha: float, chosen: Sequence[int]) -> list[bool]:
        for i in chosen:
            earlier = seen.setdefault(i, [])
            assert not any(
                at == alpha or (alpha <= START and (alpha > at if turned else alpha < at <= START))
                for at, turned in earlier
            )
            earlier.append((alpha, turns[i] <= alpha))
        return [turns[i] <= alpha for i in chosen]

    assert smallest_alpha(flips, 30, START, 0.9, most=10_000).reached


def test_where_too_few_turn_the_smallest_alpha_that_turns_as_many_is_taken_and_told() -> None:
    turns = [2.0] * 10 + [5.0] * 10 + [math.inf] * 10
    tuned = smallest_alpha(answers(turns), 30, START, WANTED, most=500)
    assert 5.0 <= tuned.alpha <= 5.0 * PRECISION
    assert (tuned.share, tuned.reached, tuned.images) == (20 / 30, False, 30)


def test_an_option_that_nothing_reaches_keeps_the_models_alpha() -> None:
    tuned = smallest_alpha(answers([math.inf] * 30), 30, START, WANTED, most=500)
    assert (tuned.alpha, tuned.share, tuned.reached) == (START, 0.0, False)
    assert max(tried.alpha for tried in tuned.curve) == START * FARTHEST


def test_without_an_image_that_must_change_there_is_nothing_to_search() -> None:
    assert smallest_alpha(answers([]), 0, START, WANTED, most=500) == Tuned(START)


def test_images_that_turn_at_any_alpha_get_the_smallest_that_is_tried() -> None:
    tuned = smallest_alpha(answers([0.0] * 30), 30, START, WANTED, most=500)
    assert START * NEAREST <= tuned.alpha <= START * NEAREST * PRECISION * 2


def test_a_search_that_runs_out_of_images_gives_an_alpha_that_is_enough() -> None:
    turns = planted(4.5, 0, 30)
    tuned = smallest_alpha(answers(turns), 30, START, 0.9, most=35)
    assert tuned.made == 35
    assert sum(at <= tuned.alpha for at in turns) >= 27


def test_the_curve_tells_what_is_known_of_each_alpha() -> None:
    tuned = searched(4.5, 0)
    alphas = [tried.alpha for tried in tuned.curve]
    assert alphas == sorted(set(alphas))
    assert all(0 <= tried.flips <= tried.images <= tuned.images for tried in tuned.curve)
    (at_end,) = (tried for tried in tuned.curve if tried.alpha == tuned.alpha)
    assert at_end.flips / tuned.images == tuned.share
