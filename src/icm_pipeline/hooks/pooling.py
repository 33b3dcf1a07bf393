"""Sums over the tokens of small outputs, those of several layers in one reduction.

Where a layer computes next to nothing a step takes the host's time, and a reduction for each layer is most of what
recording adds to it. So outputs wait for those of other layers, by reference, which is right only as long as nobody
writes into one meanwhile. That is not assumed of a class, and torch does not count what other kernels write: in the
first call that a layer is reached in its output is pooled at once, and again when it was held for as long as it may
wait later. A layer whose two sums differ in a bit never waits.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MOST, HELD = 32, 1 << 24
"""Outputs, and elements of them, that are held at once."""


class Alike(NamedTuple):
    """What outputs have in common that are pooled together."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


def pool(tokens: Tensor) -> Tensor:
    """Return the sums [b, d] over tokens [b, s, d], in float32."""
    return tokens.sum(1, dtype=torch.float32)


def pool_together(tokens: Sequence[Tensor]) -> Tensor:
    """Return the sums [outputs, b, d] of several outputs [b, s, d] that are alike."""
    return pool(torch.cat(list(tokens))).unflatten(0, (len(tokens), -1))


def most_of(tokens: Tensor) -> int:
    """Return how many outputs like one may be held."""
    return max(1, min(MOST, HELD // max(1, tokens.numel())))


class Watch:
    """Finds out whose outputs stay as they are while they are held."""

    def __init__(self) -> None:
        self._held: deque[tuple[str, Alike, Tensor, Tensor]] = deque()
        self._num_elements = 0
        self._looked_at: dict[Alike, list[tuple[str, Tensor, Tensor]]] = {}

    def hold(self, layer: str, tokens: Tensor, rows: Tensor, pooled: Tensor) -> None:
        """Hold an output, of which some rows were pooled, and look again at those that were held the longest."""
        self._held.append((layer, Alike(tokens.shape, tokens.dtype, tokens.device), rows, pooled))
        self._num_elements += tokens.numel()
        while len(self._held) > MOST or (self._num_elements > HELD and len(self._held) > 1):
            self._look_again()

    def judge(self) -> list[tuple[str, Alike]]:
        """Return the layers whose outputs stayed as they were, and what they are like; waits for the device."""
        while self._held:
            self._look_again()
        found = list[tuple[str, Alike]]()
        for alike, sums in self._looked_at.items():
            layers, before, after = zip(*sums, strict=True)
            stayed = (torch.stack(before) == torch.stack(after)).flatten(1).all(1).tolist()
            found += [(layer, alike) for layer, stays in zip(layers, stayed, strict=True) if stays]
        self._looked_at.clear()
        return found

    def _look_again(self) -> None:
        layer, alike, rows, pooled = self._held.popleft()
        self._num_elements -= alike.shape.numel()
        self._looked_at.setdefault(alike, []).append((layer, pooled, pool(rows)))
