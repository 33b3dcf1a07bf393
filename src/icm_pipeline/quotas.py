"""Exact shares of whole things."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def quotas(count: int, shares: Sequence[float] | NDArray[np.floating]) -> NDArray[np.int64]:
    """Return how many of so many things each share gets, by largest remainders; the first of equal ones first."""
    exact = count * np.asarray(shares, float)
    counts = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: count - counts.sum()]] += 1
    return counts
