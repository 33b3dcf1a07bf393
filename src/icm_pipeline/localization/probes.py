"""Linear probes on pooled activations: how well each layer and timestep tells which option an image shows.

The mathematics is scikit-learn's StandardScaler followed by LogisticRegression (L2, C). The `batched` solver finds the
same minimum for many steps at once; `scikit_learn` is the library itself, a step at a time. Batches start where the one
before ended, as the logits of neighbouring steps are much alike.

References:
    Understanding intermediate layers using linear classifier probes, 2016. https://arxiv.org/abs/1610.01644
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026.
    https://arxiv.org/abs/2604.06052
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from icm_pipeline.arrays import Bools, Floats, Floats32, Ints
from icm_pipeline.config.choices import DIRECTIONS
from icm_pipeline.localization.logistic import Solution, fit_logistic
from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.machine.threads import read_ahead, single_threaded

# Bytes of features, or of the samples' Gram matrix, per block: a core's second-level cache, or what keeps a GPU busy,
# which needs a few times as much memory.
BLOCK_BYTES = {"cpu": 2**20, "cuda": 2**30}
GPU_READERS = 8  # layers that are read and sent while others compute


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
    activations: Floats32 | Pooled,
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
    pooled = activations if isinstance(activations, Pooled) else Pooled(torch.from_numpy(activations))
    problem = _problem(labels, split, C, max_iter, device, solver)
    return _fit_together([pooled.to(device)], problem, device)[0]


def fit_layers(
    read: Callable[[str], Pooled],
    names: Collection[str],
    labels: Ints,
    split: Split,
    C: float,
    max_iter: int,
    device: str = "cpu",
    solver: str = "batched",
) -> Iterator[LayerProbes]:
    """Fit the probes of many layers, in order; read: from a layer's name to its activations.

    On the CPU a layer is a core's piece of work, on other devices one comes after the other. On CUDA the steps of
    several layers are solved together, so that it has enough to do, while the next layers are read and sent.
    """
    problem, kind = _problem(labels, split, C, max_iter, device, solver), torch.device(device).type
    if kind != "cuda":
        threads = None if kind == "cpu" else 1
        yield from single_threaded(
            lambda name: _fit_together([read(name).to(device)], problem, device)[0], names, threads
        )
        return
    waiting: list[Pooled] = []
    for pooled in read_ahead(lambda name: _sent(read(name), device), names, GPU_READERS):
        same = not waiting or waiting[0].shape == pooled.shape
        size = block_size(len(split.train), pooled.shape[2], device)
        if waiting and (not same or (len(waiting) + 1) * pooled.shape[1] > size):
            yield from _fit_together(waiting, problem, device)
            waiting = []
        waiting.append(pooled)
    if waiting:
        yield from _fit_together(waiting, problem, device)


def _sent(pooled: Pooled, device: str) -> Pooled:
    """Return activations on a GPU, sent by a stream of this thread's own and complete."""
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        sent = pooled.to(device)
    stream.synchronize()
    return sent


def _problem(labels: Ints, split: Split, C: float, max_iter: int, device: str, solver: str) -> "_Problem":
    shared = (split.train, split.test, labels[split.train], labels[split.test])
    train, test, shown, answers = (torch.from_numpy(values).to(device) for values in shared)
    return _Problem(train, test, torch.nn.functional.one_hot(shown).float(), answers, C, max_iter, solver)


def _fit_together(layers: Sequence[Pooled], problem: "_Problem", device: str) -> list[LayerProbes]:
    """Fit the probes of a layer block by block, or of several layers of one shape in a block."""
    _, num_steps, width = layers[0].shape
    size = block_size(len(problem.train), width, device)
    blocks: list[dict[str, Tensor]] = []
    start: Tensor | None = None
    for first in range(0, num_steps, size):
        block, start = _fit_block(layers, first, min(first + size, num_steps), problem, start)
        blocks.append(block)
    whole = {name: torch.cat([block[name] for block in blocks]).cpu().numpy() for name in blocks[0]}
    parts = [{name: np.split(values, len(layers))[at] for name, values in whole.items()} for at in range(len(layers))]
    return [LayerProbes(directions={name: part.pop(name) for name in DIRECTIONS}, **part) for part in parts]


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


def _fit_block(
    layers: Sequence[Pooled], first: int, last: int, problem: _Problem, start: Tensor | None
) -> tuple[dict[str, Tensor], Tensor]:
    """Fit the probes of some steps of layers, from the logits `start`; return them and the last logits."""

    def rows(chosen: Tensor) -> Tensor:
        parts = [layer.rows(chosen, first, last) for layer in layers]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    x = rows(problem.train)  # [b, n, d]
    mean_norm = torch.linalg.vector_norm(x, dim=2).mean(1)
    if problem.solver == "scikit_learn":
        mean, scale, solution = _fit_scikit_learn(x, problem)
    else:
        mean, scale = standardise(x)
        targets = problem.targets[:, 1:] if problem.targets.shape[1] == 2 else problem.targets
        solution = fit_logistic(x, targets, problem.C, problem.max_iter, start)
    held_out = rows(problem.test).sub_(mean).div_(scale)
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


def standardise(x: Tensor, share: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Standardise samples [b, n, d] in place, as StandardScaler does; return mean and scale, [b, 1, d].

    share: [b, 1, n], what each sample counts, equally much where None. What the float32 mean lacks goes into the
    intercept. A feature that varies by no more than rounding is constant: its scale is 1.
    """
    if share is None:
        share = x.new_full((len(x), 1, x.shape[1]), 1 / x.shape[1])
    mean = share @ x
    x.sub_(mean)
    scale = (share @ x.square() - (share @ x).square()).clamp_min(0).sqrt()
    scale[scale <= 10 * torch.finfo(x.dtype).eps * mean.abs()] = 1.0
    x.div_(scale)
    return mean, scale


def block_size(num_samples: int, width: int, device: str) -> int:
    """Return how many problems of so many samples and features are solved together."""
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
