"""Cells of several attributes, as ("woman", "old"): their shares, and which cell each image gets."""

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import product

import numpy as np

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.methods.assignment import least_change
from icm_pipeline.methods.balance import Balance, bounds, checked_shares
from icm_pipeline.metrics.outcomes import hard_labels

Cell = tuple[str, ...]


def least_change_of_cells(found: Sequence[Floats], shares: Floats, counts: Ints, rng: np.random.Generator) -> Ints:
    """Return an option of each attribute for each image [n, attributes] that changes as few attributes as possible.

    found: [n, options] of each attribute; shares, and counts of what was made before: an axis for each attribute. Of
    assignments that change equally few, the one whose cells are likeliest, by the product over attributes.
    """
    cells = np.stack(np.unravel_index(np.arange(shares.size), shares.shape), axis=1)
    likely = reduce(lambda joint, each: (joint[:, :, None] * each[:, None]).reshape(len(each), -1), found)
    lower, upper = bounds(counts.ravel().tolist(), shares.ravel().tolist(), len(likely))
    num_changed = (shown_options(found)[:, None] != cells).sum(axis=2)
    return cells[least_change(likely, lower, upper, rng, num_changed)]


def shown_options(found: Sequence[Floats]) -> Ints:
    """Return the option that each image shows of each attribute [n, attributes]."""
    return np.stack([hard_labels(each) for each in found], axis=1)


def every_cell(options: Sequence[Sequence[str]]) -> list[Cell]:
    return list(product(*options))


def shares_of_cells(shares: Mapping[Cell, float] | Balance, options: Sequence[Sequence[str]]) -> Floats:
    """Return the share of each cell, by an axis for each attribute; raises ValueError for other cells."""
    given, every = shares.shares if isinstance(shares, Balance) else shares, every_cell(options)
    wrong = {"missing": [cell for cell in every if cell not in given], "unknown": [c for c in given if c not in every]}
    if said := "; ".join(f"{what}: {', '.join(map(repr, those))}" for what, those in wrong.items() if those):
        raise ValueError(
            f"shares: give one for each combination of options, as {every[0]!r}, 0 for none of it; {said}."
        )
    return np.array([checked_shares(given)[cell] for cell in every]).reshape([len(each) for each in options])
