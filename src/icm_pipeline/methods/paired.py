"""Directions without pictures or a judge: from prompts that are alike but for the option they name, seed for seed.

Of a set of prompts, "a face of a female teacher" and "a face of a male teacher", a layer gives an activation for each
option. The direction to an option is the mean over sets of its activation less its set's mean, at each step; a layer's
score is how alike the sets are: the mean cosine of a set's difference and what the other sets say.

A layer that no prompt has reached yet, as a UNet's first self-attention in the first step, gives a set one activation:
what differs is rounding, no direction, and 0 stands for it, in the score too.

References:
    CASteer: Cross-Attention Steering for Controllable Concept Erasure, 2026, https://arxiv.org/abs/2503.09630, section
    3.2
    EquiSteer, 2026, https://arxiv.org/abs/2607.01147, section 3.2
Departures: at the sites that probes read, any of them, not at cross-attentions alone; away from the mean over options,
not from prompts without the concept; the score, which neither has, as both steer every layer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from icm_pipeline.arrays import Ints

PAIRS = "pairs"
ROUNDING = 1e-5  # of an activation's mean length: differences up to this are float32's noise (9e-8 was measured)


@dataclass(frozen=True)
class PairedLayer:
    """What sets of prompts say of one layer."""

    directions: Tensor
    """[T, K, d], of unit length, or 0 where the sets do not differ."""
    mean_norm: Tensor
    """[T], the mean length of an activation."""
    score: float
    """From -1 to 1; 1 if all sets differ in the same way."""


def sets_of(labels: Sequence[str | None], options: Sequence[str]) -> Ints:
    """Return which image of each set [m, K] shows which option: sets follow one another, each in an order of its own.

    Raises ValueError for a set that has not every option once, and for a single set, whose score nothing could tell.
    """
    size = len(options)
    for start in range(0, len(labels), size):
        found = labels[start : start + size]
        if set(found) != set(options) or len(found) != size:
            named = ", ".join(map(str, found))
            raise ValueError(
                f"labels[{start}:{start + len(found)}] are {named}: with direction='{PAIRS}' images come in sets, one "
                f"after the other, with each of {', '.join(options)} once and a seed in common."
            )
    if len(labels) < 2 * size:
        raise ValueError(f"{len(labels)} images are less than two sets of {size} options: record more prompts.")
    numbers = np.array([list(options).index(str(label)) for label in labels]).reshape(-1, size)
    return np.argsort(numbers, axis=1) + size * np.arange(len(numbers))[:, None]


def fit_sets(activations: Tensor) -> PairedLayer:
    """Fit a layer's directions to the activations of sets [m, K, T, d]."""
    norm = torch.linalg.vector_norm(activations, dim=-1).mean((0, 1))
    differences = beyond_rounding((activations - activations.mean(1, keepdim=True)).double(), norm)
    total, count = differences.sum(0), len(differences)
    alike = torch.nn.functional.cosine_similarity(differences, total - differences, dim=-1)
    directions = torch.nn.functional.normalize(beyond_rounding(total / count, norm), dim=-1).transpose(0, 1)
    return PairedLayer(directions.float().contiguous(), norm, float(alike.mean()))


def beyond_rounding(differences: Tensor, lengths: Tensor) -> Tensor:
    """Return differences [..., d], 0 in place of those that are rounding beside the activations' mean lengths [...]."""
    is_rounding = torch.linalg.vector_norm(differences, dim=-1) <= ROUNDING * lengths
    return differences.masked_fill(is_rounding[..., None], 0)


def check_differ(directions: Iterable[Tensor]) -> None:
    """Raise ValueError if the directions of all layers [T, K, d] are 0."""
    if not any(each.any() for each in directions):
        raise ValueError(
            "The directions are 0 in all layers, which steers nothing: the prompts that they were fitted to gave the "
            "same activations in every step. Fit them to prompts that name the options, among the tokens that the text "
            "encoder reads (CLIP's: 77)."
        )
