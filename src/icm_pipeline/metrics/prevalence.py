"""What is truly shown, from what a judge says who errs at known rates.

A judge who calls option k by j with probability E[k, j] sees the shares p E where p are the true ones. The true shares
are those of all there can be that come nearest to what was seen.

References:
    Estimating prevalence from the results of a screening test, 1978. https://doi.org/10.1093/aje/108.1.47 (for two
    options: Rogan and Gladen). Quantifying counts and costs via classification, 2008.
    https://doi.org/10.1007/s10618-008-0097-y (for more: adjusted counts)
"""

import numpy as np
from scipy.optimize import nnls

from icm_pipeline.arrays import Floats, Ints

SUM_TO_ONE = 1e4  # how much more the sum of shares counts than their fit


def confusion_rates(truth: Ints, said: Ints, num_options: int, weights: Floats | None = None) -> Floats:
    """Return how often each option [K] is called by each [K]; what was called by none (-1) does not count.

    weights [n]: how much each image counts. Raises ValueError for an option of which no image was called anything.
    """
    seen = said >= 0
    counts = np.zeros((num_options, num_options))
    np.add.at(counts, (truth[seen], said[seen]), 1.0 if weights is None else np.maximum(weights[seen], 0.0))
    totals = counts.sum(1, keepdims=True)
    if not totals.all():
        missing = np.flatnonzero(totals[:, 0] == 0).tolist()
        raise ValueError(f"No labelled image of option {missing[0]} was judged, so the judge's errors are not known.")
    rates: Floats = counts / totals
    return rates


def corrected_shares(seen: Floats, rates: Floats, is_bounded: bool = True) -> Floats:
    """Return the true shares [K] that a judge of these rates [K, K] would see as near to `seen` [K] as can be.

    is_bounded: none below 0. Resamples are not bounded, as those that all end at 0 or 1 would look surer than they are.
    """
    num_options = len(seen)
    if not is_bounded:
        return np.asarray(np.linalg.lstsq(rates.T, seen, rcond=None)[0], np.float64)
    system = np.vstack([rates.T, SUM_TO_ONE * np.ones(num_options)])
    found, _ = nnls(system, np.append(seen, SUM_TO_ONE))
    shares: Floats = found / found.sum()
    return shares


def corrected_discrepancy(
    said: Ints,
    prompts: Ints,
    rates: Floats,
    target: Floats,
    weights: Floats | None = None,
) -> float:
    """Return FD of the true shares: the mean over prompts [n] of their distance from the target [K].

    said [n]: what the judge called each image, -1 for none, which does not count; weights [n]: how much each counts in
    a resample.
    """
    given, distances = np.ones(len(said)) if weights is None else np.maximum(weights, 0.0), []
    for prompt in np.unique(prompts):
        own = (prompts == prompt) & (said >= 0)
        seen = np.bincount(said[own], given[own], len(target))
        if seen.sum():
            distances.append(np.linalg.norm(corrected_shares(seen / seen.sum(), rates, weights is None) - target))
    return float(np.mean(distances))
