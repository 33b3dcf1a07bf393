"""Agreement of two judges: the table, the share, and kappa as scikit-learn computes it."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from icm_pipeline.metrics.agreement import cohens_kappa, confusion_table, share_agreeing


def test_rows_are_the_first_judge_and_columns_the_second() -> None:
    assert confusion_table(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist() == [[1, 1], [0, 1]]


def test_images_that_a_judge_could_not_see_do_not_count() -> None:
    table = confusion_table(np.array([0, -1, 1, 1]), np.array([0, 0, -1, 1]), 2)
    assert table.tolist() == [[1, 0], [0, 1]]
    assert share_agreeing(table) == 1.0


@pytest.mark.parametrize("num_options", [2, 3, 7])
def test_kappa_is_scikit_learns(num_options: int) -> None:
    rng = np.random.default_rng(num_options)
    first = rng.integers(0, num_options, 200)
    second = np.where(rng.random(200) < 0.6, first, rng.integers(0, num_options, 200))
    found = cohens_kappa(confusion_table(first, second, num_options))
    assert found == pytest.approx(cohen_kappa_score(first, second))


def test_judges_that_agree_as_often_as_chance_have_kappa_zero_whatever_the_share() -> None:
    table = np.array([[81, 9], [9, 1]])
    assert share_agreeing(table) == 0.82
    assert cohens_kappa(table) == pytest.approx(0)


def test_kappa_of_judges_that_say_one_thing_of_all_is_not_defined() -> None:
    assert cohens_kappa(np.array([[5, 0], [0, 0]])) is None


def test_without_images_nothing_is_defined() -> None:
    table = confusion_table(np.array([-1]), np.array([0]), 2)
    assert (share_agreeing(table), cohens_kappa(table)) == (None, None)


def test_unequally_many_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="same images"):
        confusion_table(np.array([0, 1]), np.array([0]), 2)
