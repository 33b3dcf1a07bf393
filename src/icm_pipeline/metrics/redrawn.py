"""How sure a figure of images is when these are drawn again within what the design fixes; correlations of layers.

References:
    Sample size requirements for estimating Pearson, Kendall and Spearman correlations, 2000.
    https://doi.org/10.1007/BF02294183
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from icm_pipeline.arrays import Bools, Floats, Ints
from icm_pipeline.metrics.resampling import Estimate


def drawn_again(strata: Ints, num_resamples: int, rng: np.random.Generator) -> Floats:
    """Return how much each unit [n] counts in each resample [R], drawn within its stratum; 1 on average.

    Counts are moved from 1 by sqrt(m / (m - 1)) times as much as they were drawn among m units, which makes the
    variance of a mean unbiased. A stratum of one unit is never drawn again.
    """
    weights = np.ones((num_resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        if (size := len(members)) > 1:
            counts = rng.multinomial(size, np.full(size, 1 / size), num_resamples)
            weights[:, members] += (counts - 1) * np.sqrt(size / (size - 1))
    return weights


def share_of(values: Floats | Bools, weights: Floats) -> Floats:
    """Return the mean of values [..., n] in each resample [..., R]; NaN do not count.

    To first order in the weights: a resample's own sum of weights of the values that are there can be near 0 or below.
    """
    there = np.isfinite(values)
    count = there.sum(-1, keepdims=True, dtype=float)
    with np.errstate(invalid="ignore"):  # of none the mean is NaN
        mean = np.where(there, values, 0.0).sum(-1, keepdims=True) / count
        means: Floats = mean + np.where(there, values - mean, 0.0) @ (weights - 1).T / count
    return means


def discrepancies(shown: Floats, prompts: Ints, target: Floats, weights: Floats) -> Floats:
    """Return FD of images [..., n, K] in each resample [..., R]: the mean over prompts [n], as `metrics.fairness`."""
    found = []
    for prompt in np.unique(prompts):
        rows = np.moveaxis(shown[..., prompts == prompt, :], -1, -2)  # [..., K, m]
        means = share_of(rows, weights[:, prompts == prompt])
        found.append(np.linalg.norm(means - target[:, None], axis=-2))
    mean: Floats = np.nanmean(found, axis=0)  # a prompt of which the judge saw no image does not count
    return mean


def estimated(value: float, resampled: Floats, num: int, smallest: float = 0.0) -> Estimate:
    """Return a figure with the deviation of its resamples; smallest: an error that chance alone can hide."""
    return Estimate(value, max(float(np.nanstd(resampled)), smallest), num)


def rank_correlation(one: Sequence[float] | Floats, other: Sequence[float] | Floats) -> tuple[float, Estimate]:
    """Return Spearman's correlation, and its Fisher transform with the error of Bonett and Wright.

    Raises ValueError for fewer than five pairs, or figures that are all the same.
    """
    if len(one) < 5:
        raise ValueError(f"A correlation of {len(one)} pairs says nothing; it takes five.")
    if min(np.ptp(one), np.ptp(other)) == 0:
        raise ValueError("Figures that are all the same correlate with nothing.")
    found = float(stats.spearmanr(one, other).statistic)
    error = float(np.sqrt((1 + found**2 / 2) / (len(one) - 3)))
    return found, Estimate(float(np.arctanh(np.clip(found, -0.9999, 0.9999))), error, len(one))
