"""Agreement of two judges: the table, the share, and kappa."""

import numpy as np
import pytest

from icm_pipeline.metrics.agreement import agreement


def test_rows_are_the_first_judge_and_columns_the_second() -> None:
    table, _, _ = agreement(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    assert table.tolist() == [[1, 1], [0, 1]]


def test_options_that_no_judge_names_have_a_row_and_a_column() -> None:
    table, _, _ = agreement(np.array([0, 2]), np.array([0, 2]), 4)
    assert table.tolist() == np.diag([1, 0, 1, 0]).tolist()


def test_images_that_a_judge_could_not_see_do_not_count() -> None:
    table, share, _ = agreement(np.array([0, -1, 1, 1]), np.array([0, 0, -1, 1]), 2)
    assert table.tolist() == [[1, 0], [0, 1]]
    assert share == 1.0


@pytest.mark.parametrize("num_options", [2, 3, 7])
def test_kappa_is_agreement_beyond_chance(num_options: int) -> None:
    rng = np.random.default_rng(num_options)
    first = rng.integers(0, num_options, 200)
    second = np.where(rng.random(200) < 0.6, first, rng.integers(0, num_options, 200))
    table, share, kappa = agreement(first, second, num_options)
    by_chance = table.sum(1) @ table.sum(0) / 200**2
    assert share is not None
    assert kappa == pytest.approx((share - by_chance) / (1 - by_chance))


def test_judges_that_agree_as_often_as_chance_have_kappa_zero_whatever_the_share() -> None:
    first, second = np.repeat([0, 0, 1, 1], [81, 9, 9, 1]), np.repeat([0, 1, 0, 1], [81, 9, 9, 1])
    _, share, kappa = agreement(first, second, 2)
    assert share == 0.82
    assert kappa == pytest.approx(0)


def test_kappa_of_judges_that_say_one_thing_of_all_is_not_defined() -> None:
    _, share, kappa = agreement(np.zeros(5, int), np.zeros(5, int), 2)
    assert (share, kappa) == (1.0, None)


def test_without_images_nothing_is_defined() -> None:
    table, share, kappa = agreement(np.array([-1]), np.array([0]), 2)
    assert (table.tolist(), share, kappa) == ([[0, 0], [0, 0]], None, None)


def test_unequally_many_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="same images"):
        agreement(np.array([0, 1]), np.array([0]), 2)
