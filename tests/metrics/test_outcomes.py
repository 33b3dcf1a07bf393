"""Outcomes: who obeyed and who kept what, with unreadable images counted and never guessed."""

import numpy as np
import pytest

from icm_pipeline.metrics.outcomes import hard_labels, one_hot_labels, share_kept, share_obeying

NAN = float("nan")
SEEN = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
UNSEEN = np.array([[0.9, 0.1], [NAN, NAN], [0.6, 0.4], [NAN, NAN]])


def test_the_hard_label_is_the_most_probable_option() -> None:
    assert hard_labels(SEEN).tolist() == [0, 1, 0, 1]


def test_an_unreadable_image_has_no_label() -> None:
    assert hard_labels(UNSEEN).tolist() == [0, -1, 0, -1]


def test_one_nan_makes_an_image_unreadable() -> None:
    assert hard_labels(np.array([[0.9, NAN], [0.1, 0.9]])).tolist() == [-1, 1]


def test_an_image_that_shows_none_of_the_options_has_no_label() -> None:
    assert hard_labels(np.array([[0.0, 0.0], [0.0, 0.6]])).tolist() == [-1, 1]
    assert np.isnan(one_hot_labels(np.array([[0.0, 0.0]]))).all()


def test_an_image_that_shows_a_class_no_option_names_has_no_label() -> None:
    rows = np.array([[0.02, 0.03, 0.01, 0.01], [0.5, 0.2, 0.0, 0.0], [0.4, 0.1, 0.0, 0.0]])
    assert hard_labels(rows).tolist() == [-1, 0, -1]
    assert np.isnan(one_hot_labels(rows)).any(1).tolist() == [True, False, True]


@pytest.mark.parametrize("num_options", [2, 4, 101])
def test_a_judge_that_knows_the_options_alone_labels_every_image(num_options: int) -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(num_options), 500)
    assert hard_labels(rows.round(6)).tolist() == rows.round(6).argmax(1).tolist()


@pytest.mark.parametrize(("wanted", "share"), [([0, 1, 0, 1], 1.0), ([1, 0, 1, 0], 0.0), ([0, 0, 0, 0], 0.5)])
def test_obedience_is_the_share_that_shows_what_was_asked(wanted: list[int], share: float) -> None:
    assert share_obeying(SEEN, np.array(wanted)) == share


@pytest.mark.parametrize("wanted", [[0, 0, 0, 0], [0, 1, 0, 1]])
def test_an_unreadable_image_does_not_obey(wanted: list[int]) -> None:
    assert share_obeying(UNSEEN, np.array(wanted)) == 0.5


def test_what_stays_the_same_is_kept() -> None:
    assert share_kept(SEEN, SEEN) == 1.0


def test_what_turns_over_is_not_kept() -> None:
    assert share_kept(SEEN, SEEN[:, ::-1]) == 0.0


def test_a_change_within_an_option_is_kept() -> None:
    assert share_kept(np.array([[0.9, 0.1]]), np.array([[0.51, 0.49]])) == 1.0


def test_an_image_that_becomes_unreadable_is_not_kept() -> None:
    assert share_kept(SEEN, UNSEEN) == 0.5


def test_what_stays_none_of_the_options_is_kept() -> None:
    none, one, unseen = [0.1, 0.1], [0.7, 0.1], [NAN, NAN]
    before = np.array([none, none, none, one, unseen, unseen])
    after = np.array([none, one, unseen, none, none, unseen])
    assert share_kept(before, after) == 0.2
    assert share_kept(before[:1], after[:1]) == 1.0


def test_pairs_that_nobody_can_read_have_no_share() -> None:
    with pytest.raises(ValueError, match="could read"):
        share_kept(UNSEEN[1:2], UNSEEN[1:2])


def test_hard_labels_as_rows_leave_unseen_images_unseen() -> None:
    assert one_hot_labels(SEEN).tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]
    assert np.isnan(one_hot_labels(UNSEEN)).any(1).tolist() == [False, True, False, True]
