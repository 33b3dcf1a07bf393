"""Pooled activations of one layer as they are kept: in half the bytes, exact where a probe looks.

A probe standardises every feature, so what counts is the error of a feature relative to its own spread, not to its
mean. Therefore the mean over the images is taken off first, in float32, and what is left is scaled by a power of two,
feature by feature, so that its largest number fills float16. A number is off by at most 2^-11 of its distance from the
mean then.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 2.0**15  # of a scaled number; float16 ends at 65504


@dataclass(frozen=True)
class Pooled:
    """Activations [n, T, d]: offset + scale * values, or the values themselves."""

    values: Tensor
    """[n, T, d], float16 or float32."""
    scale: Tensor | None = None
    """[T, d], powers of two."""
    offset: Tensor | None = None
    """[T, d], the mean over the images."""

    @classmethod
    def halved(cls, activations: Tensor) -> "Pooled":
        """Return activations [n, T, d] in float16; raises FloatingPointError for what it cannot hold."""
        offset = activations.mean(0)
        left = activations - offset
        largest = left.abs().amax(0)
        if not largest.isfinite().all():
            raise FloatingPointError("The activations hold NaN, infinity or numbers too large for float32.")
        exponent = torch.frexp(largest / LARGEST).exponent.float()
        scale = torch.exp2(exponent).where(largest > 0, torch.ones_like(largest))
        return cls((left / scale).half(), scale, offset)

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    def to(self, device: str | torch.device) -> "Pooled":
        sent = (each if each is None else each.to(device, non_blocking=True) for each in vars(self).values())
        return Pooled(*sent)  # type: ignore[arg-type]

    def rows(self, rows: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """Return a copy of some images at the steps from first to before last, [b, rows, d] in float32."""
        found = self.values[:, first:last][rows].movedim(1, 0)
        if self.scale is None or self.offset is None:
            return found.float().contiguous()
        found = torch.empty(found.shape, device=found.device).copy_(found)
        return found.mul_(self.scale[first:last, None]).add_(self.offset[first:last, None])

    def tensors(self) -> dict[str, Tensor]:
        """Return what a file holds; `Pooled(**tensors)` is the way back."""
        return {name: each for name, each in vars(self).items() if each is not None}
