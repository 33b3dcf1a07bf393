"""Is a ranking of layers the same on other images?

References:
    A General Theory for Jackknife Variance Estimation, 1989. https://doi.org/10.1214/aos/1176347263
"""

import numpy as np
from scipy import stats

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.metrics.resampling import Estimate


def best_of(scores: Floats, k: int) -> Ints:
    """Return the k rows of scores [m] that are best; of equal ones the first."""
    return np.argsort(-scores, kind="stable")[:k]


def overlap(one: Floats, other: Floats, k: int) -> float:
    """Return the share of the best k of two rankings that both have; k / m is what random choice gives."""
    return len(np.intersect1d(best_of(one, k), best_of(other, k))) / k


def tau(one: Floats, other: Floats) -> float:
    """Return Kendall's tau-b of two rankings, 0 where one of them ranks nothing."""
    found = float(stats.kendalltau(one, other).statistic)
    return found if np.isfinite(found) else 0.0


def over_halvings(values: Floats) -> Estimate:
    """Return the mean of a figure over random halvings of the images [h] with its error (the delete-half jackknife).

    Halvings share all images, so their mean is no surer than one of them: the spread over halvings is the error.
    """
    return Estimate(float(values.mean()), float(values.std(ddof=1)), len(values))
