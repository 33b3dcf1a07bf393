"""Linear probes on pooled activations: how well each layer and timestep tells which option an image shows.

The mathematics is scikit-learn's StandardScaler followed by LogisticRegression (L2, C). All timesteps of a layer are
solved together by damped Newton steps in float64. Where there are more features than samples, the problem is first
turned into the samples' row space, which holds the L2 solution exactly. Problems too large for a Newton step go to
scikit-learn itself, which is also the tests' oracle.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NEWTON_LIMIT = 1500  # unknowns of one problem up to which a Newton step is the faster way
TOLERANCE = 1e-7  # on the largest gradient entry, per sample


@dataclass(frozen=True)
class Split:
    """Row indices of the training and the held-out samples."""

    train: Ints
    test: Ints


@dataclass(frozen=True)
class LayerProbes:
    """The probes of one layer, one per recorded step, in the space of the raw activations.

    weights: [T, K, d] (K = 1 for two options: the logit of the second), bias: [T, K], accuracy: [T] on the held-out
    samples, directions: {name: [T, options, d]} of unit length, mean_norm: [T] mean length of a pooled activation.
    """

    weights: Floats
    bias: Floats
    accuracy: Floats
    directions: dict[str, Floats]
    mean_norm: Floats


def split_samples(
    labels: Ints,
    test_share: float,
    rng: np.random.Generator,
    groups: Ints | None = None,
    names: list[str] | None = None,
) -> Split:
    """Split samples so that every option keeps its share on both sides, or, given groups, so that no group is cut.

    Raises ValueError if an option (called by its name if `names` are given) would be absent from either side.
    """
    test = np.zeros(len(labels), bool)
    if groups is None:
        for option in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == option))
            test[members[: max(1, round(test_share * len(members)))]] = True
    else:
        order = rng.permutation(np.unique(groups))
        test = np.isin(groups, order[: max(1, round(test_share * len(order)))])
    split = Split(np.flatnonzero(~test), np.flatnonzero(test))
    for option in np.unique(labels):
        for side, rows in (("training", split.train), ("held-out", split.test)):
            if not (labels[rows] == option).any():
                name = names[option] if names else option
                raise ValueError(
                    f"No {side} sample shows option {name}: generate more images (generate.images_per_prompt) "
                    "or change probe.test_share."
                )
    return split


def fit_layer(activations: NDArray[np.float32], labels: Ints, split: Split, C: float, max_iter: int) -> LayerProbes:
    """Fit the probes of one layer at every recorded step.

    activations: [n, T, d] pooled, float32; labels: [n] option indices 0..K-1, every one present in the training rows.
    """
    x = np.moveaxis(activations, 1, 0).astype(np.float64)  # [T, n, d]
    train, test = x[:, split.train], x[:, split.test]
    mean, scale = train.mean(1, keepdims=True), train.std(1, keepdims=True)
    scale[scale < 10 * np.finfo(np.float32).eps * np.abs(mean).clip(1e-30)] = 1.0  # constant features, as in the scaler
    weights, bias = fit_logistic((train - mean) / scale, labels[split.train], C, max_iter)
    weights = weights / scale
    bias = bias - np.einsum("tkd,td->tk", weights, mean[:, 0])
    predicted = predict(test, weights, bias)
    return LayerProbes(
        weights=weights,
        bias=bias,
        accuracy=(predicted == labels[split.test]).mean(1),
        directions={
            "probe": _unit(_per_option(weights)),
            "mean_difference": _unit(_mean_differences(train, labels[split.train])),
            "pattern": _unit(_per_option(_patterns(train - mean, weights))),
        },
        mean_norm=np.linalg.norm(train, axis=2).mean(1),
    )


def predict(x: Floats, weights: Floats, bias: Floats) -> Ints:
    """Return option indices [T, n] for activations [T, n, d]."""
    logits = np.einsum("tnd,tkd->tnk", x, weights, optimize=True) + bias[:, None]
    return (logits[..., 0] > 0).astype(np.int64) if logits.shape[-1] == 1 else logits.argmax(-1)


def fit_logistic(x: Floats, labels: Ints, C: float, max_iter: int) -> tuple[Floats, Floats]:
    """Minimise C * sum(log loss) + ||w||^2 / 2, the intercept left free, for T problems at once.

    x: [T, n, d] scaled features, labels: [n] -> weights [T, K, d], bias [T, K]; K = 1 for two options.
    """
    num_options = int(labels.max()) + 1
    columns = 1 if num_options == 2 else num_options
    targets = (labels[:, None] == 1 if columns == 1 else labels[:, None] == np.arange(columns)).astype(np.float64)
    basis = None
    if x.shape[2] > x.shape[1]:
        _, _, basis = np.linalg.svd(x, full_matrices=False)  # [T, r, d]
        x = x @ np.swapaxes(basis, 1, 2)
    if columns * (x.shape[2] + 1) > NEWTON_LIMIT:
        weights, bias = _fit_with_sklearn(x, labels, C, max_iter)
    else:
        weights, bias = _fit_with_newton(x, targets, C, max_iter)
    return (weights if basis is None else weights @ basis), bias


def _fit_with_newton(x: Floats, targets: Floats, C: float, max_iter: int) -> tuple[Floats, Floats]:
    num_steps, n, d = x.shape
    columns = targets.shape[1]
    ones = np.concatenate([x, np.ones((num_steps, n, 1))], axis=2)  # the last feature carries the intercept
    ridge = np.append(np.ones(d), 0.0)
    theta = np.zeros((num_steps, columns, d + 1))
    value = _objective(ones, targets, theta, C, ridge)
    for _ in range(max_iter):
        probability = _probability(ones, theta)
        gradient = C * np.swapaxes(probability - targets, 1, 2) @ ones + ridge * theta
        if np.abs(gradient).max() <= TOLERANCE * C * n:
            break
        hessian = _hessian(ones, probability, C, ridge)
        flat = gradient.reshape(num_steps, -1, 1)
        change = -np.linalg.solve(hessian, flat).reshape(theta.shape)
        slope = (gradient * change).sum((1, 2))
        length, fresh = np.ones(num_steps), theta + change
        for _ in range(30):
            fresh = theta + length[:, None, None] * change
            fresh_value = _objective(ones, targets, fresh, C, ridge)
            too_long = fresh_value > value + 1e-4 * length * slope + 1e-12 * np.abs(value)
            if not too_long.any():
                break
            length[too_long] /= 2
        theta, value = fresh, _objective(ones, targets, fresh, C, ridge)
    return theta[..., :-1], theta[..., -1]


def _probability(ones: Floats, theta: Floats) -> Floats:
    logits = ones @ np.swapaxes(theta, 1, 2)
    return expit(logits) if logits.shape[2] == 1 else softmax(logits, axis=2)


def _objective(ones: Floats, targets: Floats, theta: Floats, C: float, ridge: Floats) -> Floats:
    logits = ones @ np.swapaxes(theta, 1, 2)
    if logits.shape[2] == 1:
        loss = np.logaddexp(0, logits) - targets * logits
    else:
        top = logits.max(2, keepdims=True)
        log_sum = top + np.log(np.exp(logits - top).sum(2, keepdims=True))
        loss = targets * (log_sum - logits)
    return C * loss.sum((1, 2)) + 0.5 * (ridge * theta**2).sum((1, 2))


def _hessian(ones: Floats, probability: Floats, C: float, ridge: Floats) -> Floats:
    """Return [T, K(d+1), K(d+1)]; a trace of ridge on the intercepts fixes the softmax's free common shift."""
    num_steps, _, width = ones.shape
    columns = probability.shape[2]
    hessian = np.empty((num_steps, columns, width, columns, width))
    for a in range(columns):
        for b in range(a, columns):
            same = 1.0 if a == b else 0.0
            curvature = probability[..., a] * (same - probability[..., b])
            block = C * np.swapaxes(ones * curvature[..., None], 1, 2) @ ones
            hessian[:, a, :, b] = block
            hessian[:, b, :, a] = np.swapaxes(block, 1, 2)
    flat = hessian.reshape(num_steps, columns * width, columns * width)
    diagonal = np.arange(columns * width)
    flat[:, diagonal, diagonal] += np.tile(np.maximum(ridge, 1e-8), columns)
    return flat


def _fit_with_sklearn(x: Floats, labels: Ints, C: float, max_iter: int) -> tuple[Floats, Floats]:
    """Solve each problem with scikit-learn's lbfgs on one BLAS thread, which is its fastest setting here."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    weights, biases = [], []
    with threadpool_limits(1):
        for features in x:
            model = LogisticRegression(C=C, max_iter=max_iter, tol=1e-6).fit(features, labels)
            weights.append(model.coef_)
            biases.append(model.intercept_)
    return np.stack(weights), np.stack(biases)


def _per_option(vectors: Floats) -> Floats:
    """Return one vector per option: two options are the two signs, more are each option minus the mean over options."""
    if vectors.shape[1] == 1:
        return np.concatenate([-vectors, vectors], axis=1)
    return vectors - vectors.mean(1, keepdims=True)


def _mean_differences(x: Floats, labels: Ints) -> Floats:
    """Return each option's mean activation minus the mean of the other options' means, [T, options, d]."""
    means = np.stack([x[:, labels == option].mean(1) for option in range(int(labels.max()) + 1)], axis=1)
    return means - means.mean(1, keepdims=True)


def _patterns(centred: Floats, weights: Floats) -> Floats:
    """Return covariance times weights [T, K, d]: what the probe's logit varies with (Haufe et al. 2014)."""
    logits = centred @ np.swapaxes(weights, 1, 2)
    return np.swapaxes(logits, 1, 2) @ centred / (centred.shape[1] - 1)


def _unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)
