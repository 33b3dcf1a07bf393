"""Repeated probes: every image is held out as often, prompts stay whole, and what cannot be told is told by chance."""

import numpy as np
import pytest
import torch

from icm_pipeline.arrays import Ints
from icm_pipeline.localization.many_probes import Problem, Solving
from icm_pipeline.localization.probes import Split
from icm_pipeline.localization.repeated import (
    labels_by_group,
    projected,
    repeated_folds,
    shuffled,
    standardised,
    told_right,
)
from icm_pipeline.metrics.resampling import balanced_means

HOW = Solving(1.0, 200, "cpu", "batched")
PROMPTS = np.repeat(np.arange(20), 6)
LABELS = np.arange(120) % 2


def problems(labels: Ints, groups: Ints, seed: int = 0) -> list[Problem]:
    splits = repeated_folds(labels, groups, 10, 0.2, np.random.default_rng(seed))
    return [Problem(labels, split) for split in splits]


def test_every_image_is_held_out_as_often_and_trains_in_all_other_splits() -> None:
    splits = repeated_folds(LABELS, np.arange(120), 20, 0.2, np.random.default_rng(0))
    assert len(splits) == 20
    assert (np.bincount(np.concatenate([split.test for split in splits])) == 4).all()
    assert all(set(split.train) | set(split.test) == set(range(120)) for split in splits)
    assert all(not set(split.train) & set(split.test) for split in splits)


def test_prompts_stay_whole_where_they_are_groups() -> None:
    splits = repeated_folds(LABELS, PROMPTS, 5, 0.2, np.random.default_rng(0))
    assert all(not set(PROMPTS[split.train]) & set(PROMPTS[split.test]) for split in splits)


def test_only_the_rows_asked_for_are_split() -> None:
    rows = np.arange(0, 120, 3)
    splits = repeated_folds(LABELS, PROMPTS, 5, 0.2, np.random.default_rng(0), rows)
    assert {*np.concatenate([split.test for split in splits])} == {*rows}


def test_options_that_whole_prompts_cannot_leave_to_training_are_refused() -> None:
    with pytest.raises(ValueError, match="2 prompts cannot be dealt"):
        repeated_folds(np.repeat([0, 1], 10), np.repeat([0, 1], 10), 5, 0.2, np.random.default_rng(0))


def test_random_labels_are_one_for_a_prompt_in_the_shares_of_the_true_ones() -> None:
    labels = np.repeat([0, 1, 2], [60, 40, 20])
    found = [labels_by_group(labels, PROMPTS, np.random.default_rng(seed)) for seed in range(5)]
    assert all(len(set(each[prompt == PROMPTS])) == 1 for each in found for prompt in range(20))
    assert all(abs(np.bincount(each, minlength=3) - [60, 40, 20]).max() <= 6 for each in found)
    assert any((found[0] != each).any() for each in found[1:])


def test_what_is_planted_is_told_and_where_it_is_not_it_is_not() -> None:
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.standard_normal((2, 120, 8))).float()
    rows[0, :, 3] += torch.from_numpy(4.0 * LABELS).float()
    right = told_right(standardised(rows), problems(LABELS, PROMPTS), HOW)
    assert right.shape == (10, 2, 120)
    told = balanced_means(np.nanmean(right, axis=0), LABELS)
    assert told[0] > 0.9
    assert abs(told[1] - 0.5) < 0.15


def test_an_option_of_many_is_told_too() -> None:
    labels, rng = np.arange(120) % 4, np.random.default_rng(0)
    rows = torch.from_numpy(rng.standard_normal((1, 120, 4)) + 5 * np.eye(4)[labels]).float()
    right = told_right(standardised(rows), problems(labels, PROMPTS), HOW)
    assert balanced_means(np.nanmean(right, axis=0), labels)[0] > 0.95


def test_a_weak_probe_of_held_out_prompts_is_at_chance_and_not_below() -> None:
    """Each prompt shows one option: without it, training shows that option less, and a weak probe says another."""
    labels = np.repeat(np.arange(5), 24)
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 120, 6))).float()
    weak = Solving(1e-4, 200, "cpu", "batched")
    right = told_right(standardised(rows), problems(labels, PROMPTS), weak)
    assert balanced_means(np.nanmean(right, axis=0), labels).mean() > 0.14  # without it 0


def test_a_projection_is_as_wide_as_asked_and_each_layers_own() -> None:
    pooled = standardised(torch.from_numpy(np.random.default_rng(0).standard_normal((1, 30, 10))).float())
    narrow, other = projected(pooled, 4, "mid.attn1"), projected(pooled, 4, "mid.attn2")
    assert narrow.shape == (30, 1, 4)
    assert torch.equal(narrow.values, projected(pooled, 4, "mid.attn1").values)
    assert not torch.equal(narrow.values, other.values)
    assert projected(pooled, 10, "mid.attn1") is pooled


def test_images_that_lack_an_option_of_the_labels_cannot_be_split() -> None:
    rows = np.flatnonzero(LABELS == 0)
    with pytest.raises(ValueError, match="cannot be dealt"):
        repeated_folds(LABELS, np.arange(len(LABELS)), 5, 0.2, np.random.default_rng(0), rows)


def test_an_option_that_no_training_image_shows_is_never_told() -> None:
    labels, rng = np.repeat([0, 1, 2], 40), np.random.default_rng(0)
    rows = torch.from_numpy(np.eye(3)[labels][None] * 5 + rng.standard_normal((1, 120, 3))).float()
    train = np.flatnonzero((labels < 2) & (np.arange(120) % 2 == 0))
    test = np.flatnonzero(np.arange(120) % 2)
    right = told_right(standardised(rows), [Problem(labels, Split(train, test))], HOW)[0, 0]
    assert np.nanmean(right[labels == 2]) == 0
    assert np.nanmean(right[labels < 2]) > 0.9


def test_shuffled_labels_of_groups_stay_together_and_those_of_images_do_not() -> None:
    by_prompt, rng = PROMPTS % 2, np.random.default_rng(0)
    whole = shuffled(by_prompt, PROMPTS, rng)
    assert all(len(np.unique(whole[prompt == PROMPTS])) == 1 for prompt in range(20))
    assert whole.sum() == by_prompt.sum() and (whole != by_prompt).any()
    torn = shuffled(by_prompt, np.arange(120), rng)
    assert torn.sum() == by_prompt.sum()
    assert any(len(np.unique(torn[prompt == PROMPTS])) == 2 for prompt in range(20))


@pytest.mark.parametrize("num_options", [2, 3])
@pytest.mark.parametrize("width", [5, 150])  # fewer features than images, and more
def test_problems_solved_together_are_told_as_scikit_learn_tells_each_alone(num_options: int, width: int) -> None:
    """Their training sets differ in size, so that some are filled up."""
    labels, rng = np.arange(120) % num_options, np.random.default_rng(0)
    rows = torch.from_numpy(rng.standard_normal((2, 120, width)) + np.eye(120, width)[labels] * 1.5).float()
    few = [np.sort(rng.permutation(120)[:num]) for num in (60, 85, 120)]
    splits = [split for part in few for split in repeated_folds(labels, PROMPTS, 5, 0.2, rng, part)]
    asked = [Problem(labels, split) for split in splits]
    together, alone = (
        told_right(standardised(rows), asked, Solving(0.1, 1000, "cpu", solver))
        for solver in ("batched", "scikit_learn")
    )
    assert np.array_equal(np.isnan(together), np.isnan(alone))
    assert (np.nan_to_num(together) != np.nan_to_num(alone)).sum() <= 1  # an image at the boundary
    assert len({len(split.train) for split in splits}) > 3
