"""Cells: shares are met to within an image, by changing as few attributes as can be."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from icm_pipeline.methods.cells import least_change_of_cells


def sure(*places: int) -> np.ndarray:
    return np.where(np.arange(2) == np.array(places)[:, None], 0.9, 0.1)


@given(data=st.data(), num_images=st.integers(1, 5), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_no_other_cells_within_an_image_of_the_shares_change_fewer_attributes(
    data: st.DataObject, num_images: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    found = [rng.dirichlet([0.5] * 2, num_images) for _ in range(2)]
    weights = np.array(data.draw(st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(any)))
    shares = (weights / weights.sum()).reshape(2, 2)
    chosen = least_change_of_cells(found, shares, np.zeros((2, 2), np.int64), rng)
    cells, shown = list(itertools.product(range(2), repeat=2)), np.stack([each.argmax(1) for each in found], 1)

    def fits(options: np.ndarray) -> bool:
        counts = np.bincount(options[:, 0] * 2 + options[:, 1], minlength=4)
        return bool((np.abs(counts - num_images * shares.ravel()) < 1 - 1e-9).all())

    every = [np.array(options) for options in itertools.product(cells, repeat=num_images)]
    assert fits(chosen)
    assert (chosen != shown).sum() == min((options != shown).sum() for options in every if fits(options))


def test_an_image_that_has_one_of_two_right_is_preferred() -> None:
    """An old man is wanted: the old woman changes one attribute, the young one would have to change two."""
    shares = np.array([[0.5, 0.0], [0.0, 0.5]])
    found = [sure(0, 0), sure(0, 1)]
    chosen = least_change_of_cells(found, shares, np.zeros((2, 2), np.int64), np.random.default_rng(0))
    assert chosen.tolist() == [[0, 0], [1, 1]]


def test_places_that_must_be_filled_are_filled_though_every_attribute_changes() -> None:
    shares = np.zeros((2,) * 6)
    shares[(0,) * 6], shares[(0,) * 5 + (1,)], shares[(1,) * 6] = 0.5, 0.25, 0.25
    shown = [sure(0, 0, 0, 0, 0)] * 6
    chosen = least_change_of_cells(shown, shares, np.zeros((2,) * 6, np.int64), np.random.default_rng(0))
    assert sorted(chosen.sum(1).tolist()) == [0, 0, 0, 1, 6]
