"""Names for the arrays that functions take and give."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def spread(there: Sequence[bool], rows: Floats) -> Floats:
    """Return the rows where something is there, in order, and NaN where nothing is."""
    if all(there):
        return rows
    result = np.full((len(there), *rows.shape[1:]), np.nan)
    result[np.asarray(there)] = rows
    return result
