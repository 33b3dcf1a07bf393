"""Linear probes on pooled activations: how well each layer and timestep tells which option an image shows.

The mathematics is scikit-learn's StandardScaler followed by LogisticRegression (L2, C). The `batched` solver finds the
same minimum for many steps at once; `scikit_learn` is the library itself, a step at a time. Batches start where the one
before ended, as the logits of neighbouring steps are much alike.

References:
    Understanding intermediate layers using linear classifier probes, 2016. https://arxiv.org/abs/1610.01644
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026.
    https://arxiv.org/abs/2604.06052
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, local

import numpy as np
import torch
from torch import Tensor

from icm_pipeline.arrays import Bools, Floats, Floats32, Ints
from icm_pipeline.config.choices import DIRECTIONS
from icm_pipeline.localization.logistic import Solution, fit_logistic

# Bytes of features, or of the samples' Gram matrix, per block: a core's second-level cache, or what keeps a GPU busy.
# Each of GPU_THREADS needs a few times as much memory.
BLOCK_BYTES = {"cpu": 2**20, "cuda": 2**29}
GPU_THREADS = 4  # layers at once: some are read and sent while others compute
_LOADING = Lock()
_own = local()  # a thread's stream


@dataclass(frozen=True)
class Split:
    """Row indices of the training and the held-out samples."""

    train: Ints
    test: Ints


@dataclass(frozen=True)
class LayerProbes:
    """The probes of one layer, one per recorded step, in the space of the raw activations."""

    weights: Floats32
    """[T, K, d]; K = 1 for two options: the logit of the second."""
    bias: Floats32
    """[T, K]"""
    accuracy: Floats
    """[T], on the held-out samples."""
    directions: dict[str, Floats32]
    """{name: [T, options, d]}, of unit length."""
    mean_norm: Floats32
    """[T], the mean length of a pooled activation."""
    converged: Bools
    """[T]"""


def split_samples(
    labels: Ints,
    test_share: float,
    rng: np.random.Generator,
    groups: Ints | None = None,
    names: list[str] | None = None,
) -> Split:
    """Split samples so that every option keeps its share on both sides or, given groups, so that groups stay whole.

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


def shuffled_labels(labels: Ints, split: Split, rng: np.random.Generator) -> Ints:
    """Return labels permuted within the training and within the held-out samples."""
    shuffled = labels.copy()
    for rows in (split.train, split.test):
        shuffled[rows] = rng.permutation(labels[rows])
    return shuffled


def fit_layer(
    activations: Floats32,
    labels: Ints,
    split: Split,
    C: float,
    max_iter: int,
    device: str = "cpu",
    solver: str = "batched",
) -> LayerProbes:
    """Fit the probes of one layer at every recorded step.

    activations: [n, T, d] pooled; labels: [n] option indices 0..K-1, every one present in the training rows; solver:
    one of SOLVERS, scikit_learn on the CPU only. Only the split's rows are looked at. The result does not depend on the
    number of threads.
    """
    pooled, size = torch.from_numpy(activations), _block_size(len(split.train), activations.shape[2], device)
    blocks: list[dict[str, Tensor]] = []
    start: Tensor | None = None
    with _own_stream(device):
        shared = (split.train, split.test, labels[split.train], labels[split.test])
        train, test, shown, answers = (torch.from_numpy(values).to(device) for values in shared)
        targets = torch.nn.functional.one_hot(shown).float()
        problem = _Problem(train, test, targets, answers, C, max_iter, solver)
        for first in range(0, pooled.shape[1], size):
            block, start = _fit_block(_sent(pooled[:, first : first + size], device), problem, start)
            blocks.append(block)
        whole = {name: torch.cat([block[name] for block in blocks]).cpu().numpy() for name in blocks[0]}
    return LayerProbes(directions={name: whole.pop(name) for name in DIRECTIONS}, **whole)


@contextmanager
def _own_stream(device: str) -> Iterator[None]:
    """Run this thread's work on a CUDA stream of its own, so that layers overlap.

    The first factorisation loads a library; two threads loading it at once fail, hence the lock.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    with _LOADING:
        torch.linalg.cholesky_ex(torch.eye(1, device=device))
    if getattr(_own, "device", None) != device:
        _own.device, _own.stream = device, torch.cuda.Stream(device)
    with torch.cuda.stream(_own.stream):
        yield


def _sent(pooled: Tensor, device: str) -> Tensor:
    """Return activations on a device, copied to a GPU through pinned memory."""
    if torch.device(device).type != "cuda":
        return pooled.to(device)
    return torch.empty(pooled.shape, pin_memory=True).copy_(pooled).to(device, non_blocking=True)


def give_memory_back(device: str) -> None:
    """Release the GPU memory and the pinned memory that torch caches."""
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        if hasattr(torch, "accelerator") and hasattr(torch.accelerator, "empty_host_cache"):
            torch.accelerator.empty_host_cache()


@dataclass(frozen=True)
class _Problem:
    """What the probes of a layer share."""

    train: Tensor
    test: Tensor
    targets: Tensor
    """One-hot options of the training rows."""
    answers: Tensor
    """Options of the test rows."""
    C: float
    max_iter: int
    solver: str


def _fit_block(pooled: Tensor, problem: _Problem, start: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
    """Fit the probes of some steps [n, b, d], from the logits `start`; return them and the last logits."""
    x = _rows(pooled, problem.train)  # [b, n, d]
    mean_norm = torch.linalg.vector_norm(x, dim=2).mean(1)
    if problem.solver == "scikit_learn":
        mean, scale, solution = _fit_scikit_learn(x, problem)
    else:
        mean, scale = _standardise(x)
        targets = problem.targets[:, 1:] if problem.targets.shape[1] == 2 else problem.targets
        solution = fit_logistic(x, targets, problem.C, problem.max_iter, start)
    held_out = (_rows(pooled, problem.test) - mean).div_(scale)
    predicted = _options(torch.baddbmm(solution.bias, held_out, solution.weights))
    weights = solution.weights.mT / scale
    spread = (solution.logits - solution.logits.mean(1, keepdim=True)) / (x.shape[1] - 1)
    members = (problem.targets / problem.targets.sum(0)).expand(len(x), -1, -1)
    seen = torch.cat([spread, members], dim=2).mT @ x * scale
    pattern, means = seen.split([spread.shape[2], members.shape[2]], dim=1)
    block = {
        "weights": weights,
        "bias": solution.bias[:, 0] - (weights @ mean.mT)[..., 0],
        "accuracy": (predicted == problem.answers).double().mean(1),
        "mean_norm": mean_norm,
        "converged": solution.converged,
        "probe": _unit(_per_option(weights)),
        "mean_difference": _unit(means - means.mean(1, keepdim=True)),
        "pattern": _unit(_per_option(pattern)),
    }
    return block, solution.logits[-1:]


def _fit_scikit_learn(x: Tensor, problem: _Problem) -> tuple[Tensor, Tensor, Solution]:
    """Standardise samples [b, n, d] in place and fit step by step; return mean and scale, [b, 1, d], and the minima."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    labels, found = problem.targets.argmax(1).numpy(), []
    for rows in x.numpy():
        scaler = StandardScaler()
        scaled = scaler.fit_transform(rows.astype(np.float64))
        rows[:] = scaled
        probe = LogisticRegression(C=problem.C, max_iter=problem.max_iter).fit(scaled, labels)
        done = probe.n_iter_ < problem.max_iter
        found.append((scaler.mean_[None], scaler.scale_[None], probe.coef_.T, probe.intercept_[None], done))
    mean, scale, weights, bias, done = (torch.from_numpy(np.stack(parts)).to(x) for parts in zip(*found, strict=True))
    return mean, scale, Solution(weights, bias, torch.baddbmm(bias, x, weights), done[:, 0].bool())


def _rows(pooled: Tensor, rows: Tensor) -> Tensor:
    """Return a copy of some samples, [n, b, d] -> [b, rows, d]."""
    return pooled[rows].movedim(1, 0).contiguous()


def _standardise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Standardise samples [b, n, d] in place, as StandardScaler does; return mean and scale, [b, 1, d].

    What the float32 mean lacks goes into the intercept. A feature that varies by no more than rounding is constant: its
    scale is 1.
    """
    share = x.new_full((len(x), 1, x.shape[1]), 1 / x.shape[1])
    mean = share @ x
    x.sub_(mean)
    scale = (share @ x.square() - (share @ x).square()).clamp_min(0).sqrt()
    scale[scale <= 10 * torch.finfo(x.dtype).eps * mean.abs()] = 1.0
    x.div_(scale)
    return mean, scale


def _block_size(num_samples: int, width: int, device: str) -> int:
    kind = torch.device(device).type
    widest = min(num_samples, width) if kind == "cpu" else max(num_samples, width)
    return max(1, BLOCK_BYTES.get(kind, BLOCK_BYTES["cuda"]) // (4 * num_samples * widest))


def _options(logits: Tensor) -> Tensor:
    """Return option indices [b, n] of logits [b, n, k]."""
    return (logits[..., 0] > 0).long() if logits.shape[2] == 1 else logits.argmax(2)


def _per_option(vectors: Tensor) -> Tensor:
    """Return one vector per option: the two signs of a single one, else each option minus the mean over options."""
    if vectors.shape[1] == 1:
        return torch.cat([-vectors, vectors], dim=1)
    return vectors - vectors.mean(1, keepdim=True)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_min(1e-12)
