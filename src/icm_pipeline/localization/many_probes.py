"""Probes of the same activations on many splits and labels, as many together as keep the processor busy.

They are those of `probes.fit_layer`, without what steers. Problems with fewer training samples than others are filled
up with rows that count for nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from icm_pipeline.arrays import Floats32, Ints
from icm_pipeline.localization.logistic import fit_logistic
from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.localization.probes import Split, block_size, fit_layer, standardise


@dataclass(frozen=True)
class Problem:
    """Labels [n] to tell, and which images train and which are held out."""

    labels: Ints
    split: Split


@dataclass(frozen=True)
class Solving:
    """How a probe is fitted; see `probes.fit_layer`."""

    C: float
    max_iter: int
    device: str
    solver: str


@dataclass(frozen=True)
class Fitted:
    """What the probes of a problem say of every image."""

    number: int
    """Of the problem, among all."""
    options: Ints
    """[k], those that training images show."""
    counts: Ints
    """[k], by how many."""
    logits: Floats32
    """[T, n, k], one column for two options: the logit of the second."""


def fit_each(pooled: Pooled, problems: Sequence[Problem], how: Solving) -> Iterator[Fitted]:
    """Yield what the probes of every problem say. pooled: [n, T, d], standardised."""
    rows = pooled.values.movedim(1, 0).contiguous().to(how.device)
    known = [np.unique(problem.labels[problem.split.train], return_counts=True) for problem in problems]
    longest = max(len(problem.split.train) for problem in problems)
    size = block_size(longest, rows.shape[2], how.device)
    at_once = 1 if how.solver == "scikit_learn" else max(1, size // len(rows))
    for _, alike in groupby(range(len(problems)), lambda number: len(known[number][0])):
        numbers = list(alike)
        for first in range(0, len(numbers), at_once):
            chosen = numbers[first : first + at_once]
            asked = [(problems[number], known[number][0]) for number in chosen]
            told = _alone(pooled, asked[0], how) if how.solver == "scikit_learn" else _together(rows, asked, size, how)
            for number, logits in zip(chosen, told, strict=True):
                yield Fitted(number, *known[number], logits)


def _alone(pooled: Pooled, asked: tuple[Problem, Ints], how: Solving) -> Floats32:
    """Return the logits [1, T, n, k] of one problem, solved by scikit-learn."""
    problem, options = asked
    labels = np.searchsorted(options, problem.labels).clip(max=len(options) - 1)
    probes = fit_layer(pooled, labels, problem.split, how.C, how.max_iter, how.device, how.solver)
    return (np.einsum("ntd,tkd->tnk", pooled.values.numpy(), probes.weights) + probes.bias[:, None])[None]


def _together(rows: Tensor, asked: Sequence[tuple[Problem, Ints]], size: int, how: Solving) -> Floats32:
    """Return the logits [P, T, n, k] of problems with equally many options. rows: [T, n, d]; size: steps x problems."""
    num, (num_steps, _, width) = len(asked), rows.shape
    train, targets, counted = _filled(asked)
    index, shown, counts = (each.to(rows.device) for each in (train, targets, counted))
    told, start = list[Tensor](), None
    steps = max(1, size // num)
    for first in range(0, num_steps, steps):
        block = rows[first : first + steps]
        x = block[:, index.flatten()].reshape(-1, index.shape[1], width)  # [steps x P, n, d]
        of_steps = counts.repeat(len(block), 1, 1)
        mean, scale = standardise(x, (of_steps / of_steps.sum(1, keepdim=True)).mT)
        is_filled = bool((counted == 0).any())
        solution = fit_logistic(
            x.mul_(of_steps) if is_filled else x, shown.repeat(len(block), 1, 1), how.C, how.max_iter,
            None if start is None else start.repeat(len(block), 1, 1), of_steps if is_filled else None,
        )  # fmt: skip
        start = solution.logits[-num:]
        weights = solution.weights / scale.mT  # [steps x P, d, k]
        bias = solution.bias - mean @ weights
        of_rows = block @ weights.reshape(len(block), num, width, -1).movedim(1, 2).flatten(2)  # [steps, n, P x k]
        logits = of_rows.reshape(len(block), rows.shape[1], num, -1).movedim(2, 0)
        told.append(logits + bias.reshape(len(block), num, 1, -1).movedim(1, 0))
    return torch.cat(told, dim=1).cpu().numpy()


def _filled(asked: Sequence[tuple[Problem, Ints]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return training rows [P, n], targets [P, n, k] and what a row counts [P, n, 1], filled up to the longest."""
    longest = max(len(problem.split.train) for problem, _ in asked)
    train = torch.zeros(len(asked), longest, dtype=torch.int64)
    shown = torch.zeros(len(asked), longest, dtype=torch.int64)
    counted = torch.zeros(len(asked), longest, 1)
    for place, (problem, options) in enumerate(asked):
        num = len(problem.split.train)
        train[place, :num] = torch.from_numpy(problem.split.train)
        shown[place, :num] = torch.from_numpy(np.searchsorted(options, problem.labels[problem.split.train]))
        counted[place, :num] = 1
    num_options = len(asked[0][1])
    targets = shown[..., None].float() if num_options == 2 else torch.nn.functional.one_hot(shown, num_options).float()
    return train, targets, counted
