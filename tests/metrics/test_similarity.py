"""CLIP-I: (cos + 1) / 2, paired by id."""

import numpy as np
import pytest

from icm_pipeline.metrics.similarity import mapped_cosine, pair_by_id


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 0], [1, 0], 1.0),
        ([1, 0], [-1, 0], 0.0),
        ([1, 0], [0, 1], 0.5),
        ([3, 0], [0.1, 0], 1.0),
        ([1, 1], [1, 0], (1 + np.sqrt(0.5)) / 2),
    ],
)
def test_the_mapped_cosine_has_its_hand_values(a: list[float], b: list[float], expected: float) -> None:
    assert mapped_cosine(np.array([a], float), np.array([b], float)) == pytest.approx([expected])


def test_each_row_is_compared_with_its_own_twin() -> None:
    a = np.eye(3)
    assert mapped_cosine(a, a).tolist() == [1, 1, 1]
    assert mapped_cosine(a, a[[1, 2, 0]]).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(("a", "b"), [((2, 3), (3, 3)), ((2, 3), (2, 4)), ((1, 3), (4, 3))])
def test_unequal_shapes_are_refused(a: tuple[int, int], b: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="equally many"):
        mapped_cosine(np.ones(a), np.ones(b))


def test_pairs_follow_ids_and_not_order() -> None:
    others = ["c", "a", "b"]
    assert [others[i] for i in pair_by_id(["a", "b", "c"], others)] == ["a", "b", "c"]


@pytest.mark.parametrize(("ids", "others"), [(["a", "b"], ["a"]), (["a"], ["a", "b"]), (["a", "b"], ["a", "x"])])
def test_an_image_without_a_twin_is_refused_by_name(ids: list[str], others: list[str]) -> None:
    with pytest.raises(ValueError, match="no twin") as caught:
        pair_by_id(ids, others)
    assert "'b'" in str(caught.value)


def test_no_images_are_no_pairs() -> None:
    assert pair_by_id([], []) == []
