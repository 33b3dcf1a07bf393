"""Which images are steered on trial, and which of them are taken."""

import numpy as np
import pytest

from icm_pipeline.methods.sparing import least_changed, tried_options

WOMAN, MAN, NEITHER = 0, 1, -1
SHOWN = np.array([MAN] * 10 + [WOMAN] * 2)
WANTED = np.array([WOMAN] * 4 + [MAN] * 6 + [WOMAN] * 2)
ONE_PROMPT = [0] * 12


def test_with_one_try_those_that_have_to_change_are_steered_and_no_other() -> None:
    tried = tried_options(ONE_PROMPT, SHOWN, WANTED, 1, seed=0)
    assert tried.tolist() == [WOMAN] * 4 + [-1] * 8


@pytest.mark.parametrize(("tries", "number"), [(2, 8), (3, 10), (9, 10)])
def test_more_are_tried_of_the_option_that_is_too_frequent_and_at_most_all_of_it(tries: int, number: int) -> None:
    tried = tried_options(ONE_PROMPT, SHOWN, WANTED, tries, seed=0)
    assert (tried[:4] == WOMAN).all()
    assert (tried == WOMAN).sum() == number
    assert (tried[10:] == -1).all()


def test_images_that_are_left_alone_are_not_tried() -> None:
    wanted = np.where(np.arange(12) == 9, -1, WANTED)
    assert tried_options(ONE_PROMPT, SHOWN, wanted, 9, seed=0)[9] == -1


def test_no_prompt_is_tried_for_what_another_one_lacks() -> None:
    prompts, shown = [0] * 12 + [1] * 4, np.append(SHOWN, [MAN, MAN, WOMAN, WOMAN])
    tried = tried_options(prompts, shown, np.append(WANTED, [MAN, MAN, WOMAN, WOMAN]), 9, seed=0)
    assert (tried[12:] == -1).all()


def test_the_seed_decides_who_is_tried() -> None:
    tried = [tried_options(ONE_PROMPT, SHOWN, WANTED, 2, seed).tolist() for seed in (1, 1, 2)]
    assert tried[0] == tried[1] != tried[2]


def test_of_several_options_each_is_tried_as_often_as_it_is_lacked() -> None:
    shown, wanted = np.zeros(40, np.int64), np.array([1] * 9 + [2] * 3 + [0] * 28)
    tried = tried_options([0] * 40, shown, wanted, 3, seed=0)
    assert np.bincount(tried[tried >= 0], minlength=3).tolist() == [0, 27, 9]


def test_those_that_turned_are_taken_and_of_them_those_that_changed_least() -> None:
    tried = np.array([WOMAN] * 10 + [-1] * 2)
    turned, change = np.ones(12, bool), np.arange(12.0)[::-1]
    turned[9] = False  # it changed least of all
    options = least_changed(ONE_PROMPT, SHOWN, WANTED, tried, turned, change)
    assert options.tolist() == [MAN] * 5 + [WOMAN] * 4 + [MAN] + [WOMAN] * 2


def test_where_too_few_turned_the_shares_are_filled_with_those_that_changed_least() -> None:
    tried = np.array([WOMAN] * 10 + [-1] * 2)
    turned = np.arange(12) == 0
    options = least_changed(ONE_PROMPT, SHOWN, WANTED, tried, turned, np.arange(12.0)[::-1])
    assert np.flatnonzero(options[:10] == WOMAN).tolist() == [0, 7, 8, 9]


def test_every_prompt_and_option_gets_as_many_as_before_the_trial() -> None:
    rng = np.random.default_rng(0)
    prompts, shown, wanted = rng.integers(0, 3, 200), rng.integers(-1, 4, 200), rng.integers(-1, 4, 200)
    tried = tried_options(prompts.tolist(), shown, wanted, 2, seed=0)
    options = least_changed(prompts.tolist(), shown, wanted, tried, rng.random(200) < 0.5, rng.random(200))
    for prompt in range(3):
        before, after = (np.bincount(each[prompts == prompt] + 1, minlength=5) for each in (wanted, options))
        assert before.tolist() == after.tolist()
    assert (options != wanted).any()
    assert ((options == shown) | (options == tried) | (options == wanted)).all()
    assert (options[tried < 0] == wanted[tried < 0]).all()


def test_what_cannot_be_told_is_steered_whatever_it_changes() -> None:
    shown, wanted = np.array([NEITHER, MAN, MAN]), np.array([WOMAN, WOMAN, MAN])
    tried = tried_options([0] * 3, shown, wanted, 2, seed=0)
    assert tried.tolist() == [WOMAN] * 3
    options = least_changed([0] * 3, shown, wanted, tried, np.array([False, True, True]), np.array([9.0, 5.0, 1.0]))
    assert options.tolist() == [WOMAN, MAN, WOMAN]
