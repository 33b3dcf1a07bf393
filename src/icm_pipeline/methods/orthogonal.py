"""Directions of several attributes in one layer: how much they overlap, and the nearest ones that do not.

Each attribute's directions span a space of their own. Löwdin's orthonormalisation turns the spaces of a layer and step
as little as possible until they are orthogonal, all of them alike, so that the attributes' order does not matter.
Within its space an attribute's directions keep their lengths and angles.

References:
    On the non-orthogonality problem connected with the use of atomic wave functions (symmetric orthonormalisation),
    Löwdin, 1950, https://doi.org/10.1063/1.1747632
    Numerical methods for computing angles between linear subspaces, Björck and Golub, 1973,
    https://doi.org/10.1090/S0025-5718-1973-0348991-3
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from icm_pipeline.methods.vectors import SteeringVectors

NOTHING = 1e-3  # of a layer's longest singular value, below which a direction is a sum of the others
ALIKE = 1e-3  # least eigenvalue of the spaces' products: two directions at a cosine of 0.999


def overlaps(*vectors: SteeringVectors) -> dict[str, float]:
    """Return how much the directions of several attributes overlap in each layer that two or more of them have.

    An overlap is the cosine of the least angle between the spaces of two attributes' options, from 0 (orthogonal) to 1,
    of the two that are nearest, as a mean over steps. Raises ValueError for vectors of other steps or widths.

    Example:
        overlaps(load_vectors("gender.safetensors"), load_vectors("age.safetensors"))  # {layer: 0.58}
    """
    return {
        layer: float(np.mean([_overlap(_spaces(step)) for step in _steps(layer, those)]))
        for layer, those in _shared(vectors).items()
    }


def orthogonal(vectors: Sequence[SteeringVectors]) -> list[SteeringVectors]:
    """Return vectors whose directions are orthogonal to those of the other attributes, in each layer and step.

    A layer that one attribute alone has stays as it is. Raises ValueError for vectors of other steps or widths, and
    where directions of two attributes are all but the same.
    """
    turned = [dict(each.directions) for each in vectors]
    for layer, those in _shared(vectors).items():
        steps = [_orthogonal(step, layer, those) for step in _steps(layer, those)]
        for each, found in zip(those, zip(*steps, strict=True), strict=True):
            place = next(index for index, one in enumerate(vectors) if one is each)
            turned[place][layer] = torch.stack(found).float()
    return [replace(each, directions=directions) for each, directions in zip(vectors, turned, strict=True)]


def _shared(vectors: Sequence[SteeringVectors]) -> dict[str, list[SteeringVectors]]:
    """Return the vectors that have each layer, of layers that several have."""
    layers = dict.fromkeys(layer for each in vectors for layer in each.layers)
    having = {layer: [each for each in vectors if layer in each.directions] for layer in layers}
    return {layer: those for layer, those in having.items() if len(those) > 1}


def _steps(layer: str, vectors: Sequence[SteeringVectors]) -> list[list[Tensor]]:
    """Return the directions of each step: of each attribute [options, d], float64."""
    first, names = vectors[0], " and ".join(each.attribute for each in vectors)
    for other in vectors[1:]:
        if len(first.steps) != len(other.steps) or not np.allclose(first.noise_levels, other.noise_levels):
            raise ValueError(
                f"The vectors of {names} were recorded at other steps: make them from the same recordings."
            )
        if first.directions[layer].shape[-1] != other.directions[layer].shape[-1]:
            raise ValueError(f"The vectors of {names} differ in width in {layer}: they were made on different models.")
    return [list(step) for step in zip(*(each.directions[layer].double() for each in vectors), strict=True)]


def _space(directions: Tensor) -> Tensor:
    """Return an orthonormal basis [rank, d] of what directions [options, d] span."""
    _, lengths, basis = torch.linalg.svd(directions, full_matrices=False)
    return basis[lengths > NOTHING * lengths[0].clamp_min(torch.finfo(lengths.dtype).tiny)]


def _spaces(step: Sequence[Tensor]) -> list[Tensor]:
    return [_space(directions) for directions in step]


def _overlap(spaces: Sequence[Tensor]) -> float:
    """Return the largest cosine between a direction of one space and one of another."""
    return max(
        min(1.0, float(torch.linalg.matrix_norm(one @ other.T, 2))) if len(one) and len(other) else 0.0
        for one, other in combinations(spaces, 2)
    )


def _orthogonal(step: Sequence[Tensor], layer: str, vectors: Sequence[SteeringVectors]) -> list[Tensor]:
    """Return the directions [options, d] of each attribute, turned with their spaces."""
    spaces = _spaces(step)
    joined = torch.cat(spaces)
    values, axes = torch.linalg.eigh(joined @ joined.T)
    if len(values) and values[0] < ALIKE:
        names = " and ".join(each.attribute for each in vectors)
        raise ValueError(
            f"In {layer} the directions of {names} are all but the same (overlap {_overlap(spaces):.3f}) at some step, "
            "and cannot be made orthogonal: leave the layer out for one of them, by its vectors' of_layers([...])."
        )
    turned = ((axes * values.rsqrt()) @ axes.T @ joined).split([len(space) for space in spaces])
    moved = zip(step, spaces, turned, strict=True)
    return [torch.nn.functional.normalize(old @ space.T @ new, dim=-1) for old, space, new in moved]
