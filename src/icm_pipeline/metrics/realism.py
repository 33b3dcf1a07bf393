"""FID and KID: how far the features of a set of images lie from those of a reference; torch-fidelity computes them.

References:
    GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (FID), 2017.
    https://arxiv.org/abs/1706.08500
    Demystifying MMD GANs (KID), 2018. https://arxiv.org/abs/1801.01401
"""

from importlib.util import find_spec

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.text import installing

NUM_SUBSETS, SUBSET_SIZE = 100, 1000  # of KID, as published; smaller sets are taken whole


def frechet_distance(features: Floats, reference: Floats) -> float:
    """Return the Frechet distance of Gaussians fitted to features [n, d] and a reference [m, d].

    It falls as n grows: compare only sets of one size. Raises ValueError for fewer than two images on a side.
    """
    _check(features, reference)
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    sides = [{"mu": side.mean(0), "sigma": np.cov(side, rowvar=False)} for side in (features, reference)]
    return max(0.0, float(fid_statistics_to_metric(*sides, verbose=False)[KEY_METRIC_FID]))  # rounding can pass 0


def kernel_distance(features: Floats, reference: Floats, seed: int) -> tuple[float, float]:
    """Return KID, the unbiased squared MMD under a cubic kernel, as mean and deviation over random subsets.

    Near 0 it can be negative. Raises ValueError for fewer than two images on a side.
    """
    _check(features, reference)
    import torch
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    found = kid_features_to_metric(
        torch.from_numpy(features),
        torch.from_numpy(reference),
        kid_subsets=NUM_SUBSETS,
        kid_subset_size=min(SUBSET_SIZE, len(features), len(reference)),
        rng_seed=seed,
        verbose=False,
    )
    return float(found[KEY_METRIC_KID_MEAN]), float(found[KEY_METRIC_KID_STD])


def require_library() -> None:
    """Raise ModuleNotFoundError saying what to install if torch-fidelity is not there."""
    if find_spec("torch_fidelity") is None:
        raise ModuleNotFoundError(
            f"FID, KID and Inception features need torch-fidelity: {installing('fid')}, or set evaluate.reference=null."
        )


def _check(features: Floats, reference: Floats) -> None:
    if min(len(features), len(reference)) < 2:
        raise ValueError(f"FID and KID need two images on each side, found {len(features)} and {len(reference)}.")
    require_library()
