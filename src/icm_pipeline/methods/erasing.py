"""What a linear probe reads of a concept, in closed form: whitening, LEACE's projection, MidSteer's switch.

With W a whitening of the activations' covariance and mu their mean, LEACE's r(x) = x - W^-1 P W (x - mu), P the
projection on the span of W Cov(x, z), has no covariance with the labels z, for any invertible W.

References:
    LEACE: Perfect linear concept erasure in closed form, 2023, https://arxiv.org/abs/2306.03819, theorem 4.3
    Shrinkage Algorithms for MMSE Covariance Estimation (OAS), 2010, https://arxiv.org/abs/0907.4698, equation 23
Departure: where that equation has 1 - 2/p and n + 1 - 2/p, here are 1 and n + 1, as in scikit-learn's OAS; p is large.
"""

import torch
from torch import Tensor

from icm_pipeline.arrays import Ints
from icm_pipeline.methods.learnt import option_means

TOLERANCE = 0.01  # singular values of the whitened cross-covariance below this are taken for 0, as in LEACE's code


def shrunk_covariance(x: Tensor) -> Tensor:
    """Return the covariance [d, d] of samples [n, d], shrunk towards a multiple of the identity (OAS)."""
    n, d = x.shape
    centred = x - x.mean(0)
    found = centred.mT @ centred / n
    mean, square = found.trace() / d, found.square().sum() / d**2
    excess = square - mean.square() / d
    shrinkage = 1.0 if excess <= 0 else min(1.0, float((square + mean.square()) / ((n + 1) * excess)))
    return (1 - shrinkage) * found + shrinkage * mean * torch.eye(d, dtype=x.dtype)


def roots(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symmetric square root of a covariance and its inverse, the whitening W."""
    values, vectors = torch.linalg.eigh(covariance)
    scale = values.clamp_min(values.amax() * 1e-10).sqrt()
    return (vectors * scale) @ vectors.mT, (vectors / scale) @ vectors.mT


def erasure(x: Tensor, labels: Ints) -> tuple[Tensor, Tensor]:
    """Return the factors [d, K - 1] and [K - 1, d] of LEACE's projection; x: samples [n, d], each with a label [n]."""
    shown = torch.nn.functional.one_hot(torch.from_numpy(labels)).to(x)
    root, whitening = roots(shrunk_covariance(x))
    cross = whitening @ (x - x.mean(0)).mT @ (shown - shown.mean(0)) / len(x)
    left, values, _ = torch.linalg.svd(cross, full_matrices=False)
    kept = left[:, : shown.shape[1] - 1] * (values > TOLERANCE)[: shown.shape[1] - 1]
    return root @ kept, kept.mT @ whitening


def fit_erasure(activations: Tensor, labels: Ints) -> dict[str, Tensor]:
    """Return LEACE of a layer at every step, and the directions to add back; activations: [n, T, d]."""
    seen = labels >= 0
    x, own = activations[torch.from_numpy(seen)], labels[seen]
    pairs = [erasure(rows.double(), own) for rows in x.unbind(1)]
    left, right = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    means = option_means(x, own)
    norm = torch.linalg.vector_norm(x, dim=2).mean(0)
    direction = torch.nn.functional.normalize(means - means.mean(1, keepdim=True), dim=-1)
    return {"left": left, "right": right, "mean": x.mean(0), "direction": direction, "norm": norm}


def fit_switch(activations: Tensor, labels: Ints) -> dict[str, Tensor]:
    """Return what reads each option [T, K, d] and each option's mean less that of all [T, K, d], of a layer.

    An option's reader is u+ W with u = W (mean - mu): 1 at the option's mean and 0 at mu.
    """
    centres = option_means(activations, labels) - activations.mean(0)[:, None]
    readers = []
    for rows, centre in zip(activations.unbind(1), centres, strict=True):
        _, whitening = roots(shrunk_covariance(rows.double()))
        u = centre.double() @ whitening
        readers.append(u @ whitening / u.square().sum(1, keepdim=True).clamp_min(1e-30))
    return {"reader": torch.stack(readers), "centre": centres, "mean": activations.mean(0)}
