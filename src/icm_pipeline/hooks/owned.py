"""Whether what a module returned may be written into: nobody else holds it or looks at its memory.

Proved for every tensor by counting its holders, not assumed of a class: a module may return its input, an Identity or a
Dropout in evaluation does, or keep its output. What torch does not count in this way is copied.
"""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def is_own(output: Any) -> bool:
    """Say whether the first forward hook of a module may write into its output, a tensor that no gradient needs.

    Call it with the hook's own argument, before anything else refers to it.
    """
    return (
        _FRESH is not None
        and type(output) is Tensor
        and not output.requires_grad
        and sys.getrefcount(output) == _FRESH.references
        and output.is_contiguous()
        and _is_only_view(output, _FRESH)
    )


@dataclass(frozen=True)
class _Counts:
    """How often what belongs to a fresh output of a module is held, as `is_own` counts."""

    references: int
    """To the tensor."""
    base_references: int
    """To the tensor that it is the only view of, as a linear layer's output of three dimensions is."""
    storage_references: int
    """To the object that stands for its memory, which torch hands out again while somebody has it."""


def _is_only_view(output: Tensor, fresh: _Counts) -> bool:
    """Say whether no other tensor shares the memory, but a base that nobody else refers to."""
    storage = output.untyped_storage()
    if not storage.resizable() or sys.getrefcount(storage) != fresh.storage_references:
        return False  # memory that is numpy's or another library's, or of which somebody keeps the storage
    holders = torch._C._storage_Use_Count(storage._cdata)  # the tensor's own, and the one that asks
    if holders == 2:
        return True
    return holders == 3 and not output.is_inference() and sys.getrefcount(output._base) == fresh.base_references


def _count_fresh() -> _Counts | None:
    """Count at a module whose output is fresh; None where torch does not count.

    While torch's compiler looks at every frame, callers hold what they pass on and the counts are higher: then a fresh
    output is taken for one that is held, and copied.
    """
    if not hasattr(torch._C, "_storage_Use_Count"):
        return None
    found = []

    def count(output: Tensor) -> None:
        storage = output.untyped_storage()
        found.append(_Counts(sys.getrefcount(output), sys.getrefcount(output._base), sys.getrefcount(storage)))

    def after(module: nn.Module, args: Any, output: Tensor) -> None:
        count(output)

    probe = nn.Linear(1, 1)
    handle = probe.register_forward_hook(after)
    with torch.inference_mode(False), torch.no_grad():
        probe(torch.zeros(1, 1, 1))
    handle.remove()
    return found[0]


_FRESH = _count_fresh()
