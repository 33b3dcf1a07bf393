"""Many probes of the same activations: on other splits, of other labels, at one width for all layers."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from icm_pipeline.arrays import Floats32, Ints
from icm_pipeline.localization.many_probes import Problem, Solving, fit_each
from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.localization.probes import Split, give_memory_back, standardise
from icm_pipeline.machine.threads import single_threaded
from icm_pipeline.progress import working

Answer = TypeVar("Answer")
DEALS = 100  # tries until every option is among the training images


def repeated_folds(
    labels: Ints, groups: Ints, num_splits: int, test_share: float, rng: np.random.Generator, rows: Ints | None = None
) -> list[Split]:
    """Return splits of which about so many rows are held out, all equally often: cross-validation, dealt anew.

    Groups [n] stay whole, and options are as even over the folds as whole groups let them; rows: those to split, all
    where None. Raises ValueError if no deal leaves every option of the labels among the training images.
    """
    among = np.arange(len(labels)) if rows is None else rows
    num_folds = max(2, round(1 / test_share))
    splits: list[Split] = []
    for _ in range(-(-num_splits // num_folds)):
        fold = _dealt(labels[among], groups[among], num_folds, len(np.unique(labels)), rng)
        splits += [Split(among[fold != part], among[fold == part]) for part in range(num_folds)]
    return splits


def labels_by_group(labels: Ints, groups: Ints, rng: np.random.Generator) -> Ints:
    """Return random labels, one per group, that images have in about the shares of the true ones.

    A probe that tells them has learnt groups by heart (Hewitt and Liang's control task,
    https://arxiv.org/abs/1909.03368).
    """
    names, members = np.unique(groups, return_inverse=True)
    order = rng.permutation(len(names))
    sizes = np.bincount(members)[order]
    middles = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    dealt = np.empty(len(names), np.int64)
    dealt[order] = np.searchsorted(np.cumsum(np.bincount(labels) / len(labels))[:-1], middles)
    return dealt[members]


def shuffled(labels: Ints, groups: Ints, rng: np.random.Generator) -> Ints:
    """Return the labels of whole groups in another order: images of a group stay as alike as they are."""
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    blocks = rng.permutation(len(starts))
    begun = np.cumsum(sizes[blocks]) - sizes[blocks]  # where each block goes
    rows = np.repeat(starts[blocks] - begun, sizes[blocks]) + np.arange(len(labels))
    dealt = np.empty_like(labels)
    dealt[order] = labels[order][rows]
    return dealt


def told_right(pooled: Pooled, problems: Sequence[Problem], how: Solving) -> Floats32:
    """Return whether each held-out image was told right at each step [problems, T, n]; NaN where it was not held out.

    pooled: [n, T, d], standardised. Logits are told apart as if all options were equally frequent, as balanced accuracy
    counts them (https://arxiv.org/abs/2007.07314): else a weak probe, which says what most training images show, falls
    below chance where whole prompts are held out, whose option the training images then show less. An option that no
    training image shows is never told.
    """
    num, num_steps, _ = pooled.shape
    found = np.full((len(problems), num_steps, num), np.nan, np.float32)
    for fitted in fit_each(pooled, problems, how):
        problem, odds = problems[fitted.number], np.log(fitted.counts)
        logits = fitted.logits[:, problem.split.test]
        shown = logits[..., 0] > odds[1] - odds[0] if len(odds) == 2 else (logits - odds).argmax(2)
        told = fitted.options[shown.astype(np.int64)]
        found[fitted.number][:, problem.split.test] = told == problem.labels[problem.split.test]
    return found


def standardised(rows: Tensor) -> Pooled:
    """Return activations [T, n, d], each feature of a step with mean 0 and deviation 1, which changes no probe."""
    rows = rows.clone()
    standardise(rows)
    return Pooled(rows.movedim(0, 1).contiguous())


def projected(pooled: Pooled, width: int, layer: str) -> Pooled:
    """Return standardised activations at a smaller width, by a random projection that each layer has of its own."""
    size = pooled.shape[2]
    if size <= width:
        return pooled
    matrix = np.random.default_rng([crc32(layer.encode()), width]).standard_normal((size, width)) / np.sqrt(width)
    return Pooled(pooled.values @ torch.from_numpy(matrix).float())


def for_each_layer(title: str, layers: Sequence[str], device: str, ask: Callable[[str], Answer]) -> Iterator[Answer]:
    """Yield what is asked of each layer, in order: on the CPU a core each, elsewhere one after the other."""
    kind = torch.device(device).type
    with working(title, len(layers), "layer") as work:
        for found in single_threaded(ask, layers, None if kind == "cpu" else 1):
            yield found
            work.advance()
    give_memory_back(device)


def _dealt(labels: Ints, groups: Ints, num_folds: int, num_options: int, rng: np.random.Generator) -> Ints:
    """Return the fold of each image; groups are dealt in random order, those with the same options together."""
    names, members = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), labels.max() + 1))
    np.add.at(counts, (members, labels), 1)
    main = counts.argmax(1)
    for _ in range(DEALS):
        order = rng.permutation(len(names))
        order = order[np.argsort(main[order], kind="stable")]
        fold_of = np.empty(len(names), np.int64)
        fold_of[order] = (np.arange(len(names)) + rng.integers(num_folds)) % num_folds
        fold = fold_of[members]
        if all(len(np.unique(labels[fold != part])) == num_options for part in range(num_folds)):
            return fold
    raise ValueError(
        f"{len(names)} prompts cannot be dealt into {num_folds} parts so that the images outside each show every "
        "option: generate more images or give more prompts (attribute.probe_templates)."
    )
