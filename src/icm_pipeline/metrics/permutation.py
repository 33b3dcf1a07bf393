"""How rare a figure is among those found where there is nothing to find.

References:
    Statistical tests of the maximum over many places: Nonparametric permutation tests for functional neuroimaging,
    2002. https://doi.org/10.1002/hbm.1058
    Faster permutation inference in brain imaging, 2016. https://doi.org/10.1016/j.neuroimage.2016.05.068
"""

import numpy as np
from scipy import stats

from icm_pipeline.arrays import Floats

ENOUGH = 10  # shuffles that reach a figure, from which counting them is exact enough


def tail_probability(found: float, null: Floats) -> float:
    """Return the probability of a maximum as large as the one found, given the maxima of shuffled labels.

    Counted where enough shuffles reach it; beyond them the tail of a Gumbel law, which maxima tend to, with the mean
    and the standard deviation of theirs: 200 shuffles alone could never be rare enough for one claim of many.
    """
    reached = int((null >= found).sum())
    spread = float(null.std(ddof=1))
    if reached >= ENOUGH or not spread:
        return (1 + reached) / (1 + len(null))
    scale = spread * np.sqrt(6) / np.pi
    return float(stats.gumbel_r.sf(found, null.mean() - np.euler_gamma * scale, scale))
