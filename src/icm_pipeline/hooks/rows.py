"""Calls of a denoiser that compute the rows of some images alone: what is cut out of a call, and put into its result.

A call's rows are parts of guidance, each with all images in order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import BackboneError, Family

_images: WeakKeyDictionary[nn.Module, tuple[int, ...]] = WeakKeyDictionary()


def compute_only(denoiser: nn.Module, images: Iterable[int] | None) -> None:
    """Say which images the denoiser's next calls compute, None for all."""
    if images is None:
        _images.pop(denoiser, None)
    else:
        _images[denoiser] = tuple(images)


def computed_images(denoiser: nn.Module) -> tuple[int, ...] | None:
    """Return the images that the denoiser's calls compute, None for all."""
    return _images.get(denoiser)


@dataclass(frozen=True)
class Rows:
    """Some rows of a call."""

    numbers: list[int]
    num_rows: int
    """That the whole call has."""
    index: Tensor
    """The numbers, on the device."""

    @classmethod
    def of(cls, images: Sequence[int], num_images: int, num_rows: int, device: torch.device) -> "Rows":
        """Return the rows of some images, in every part of a call."""
        numbers = [first + image for first in range(0, num_rows, num_images) for image in images]
        return cls(numbers, num_rows, torch.tensor(numbers, device=device))

    def cut(self, inputs: Mapping[str, Any], family: Family) -> dict[str, Any]:
        """Return the inputs of a call by name with these rows alone; what all rows share stays."""
        result = dict[str, Any]()
        for name, value in inputs.items():
            if name in family.inputs_by_row:
                result[name] = [value[row] for row in self.numbers]
            elif name in family.inputs_by_layer:
                result[name] = value.index_select(1, self.index.to(value.device))
            else:
                result[name] = value if name in family.shared_inputs else self._cut(value)
        return result

    def _cut(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            is_by_row = value.dim() > 0 and value.shape[0] == self.num_rows
            return value.index_select(0, self.index.to(value.device)) if is_by_row else value
        if isinstance(value, dict):
            if any(isinstance(name, int) and isinstance(inside, list) for name, inside in value.items()):
                raise BackboneError(
                    "The denoiser is told by the number of a row what it has (OmniGen's pictures), so that a part of a "
                    "batch cannot be computed again."
                )
            return {name: self._cut(inside) for name, inside in value.items()}
        return type(value)(map(self._cut, value)) if isinstance(value, (list, tuple)) else value

    def put(self, whole: Any, part: Any) -> Any:
        """Return a whole call's result with that of a call of these rows in its place; raises BackboneError."""
        if isinstance(whole, Tensor) and isinstance(part, Tensor) and len(part) == len(self.numbers):
            return whole.index_copy(0, self.index.to(whole.device), part)
        if isinstance(whole, (list, tuple)) and type(whole) is type(part):
            if len(whole) == len(part):
                return type(whole)(map(self.put, whole, part))
            if len(part) == len(self.numbers):  # an item for each row
                new_of = dict(zip(self.numbers, part, strict=True))
                return type(whole)(new_of.get(row, old) for row, old in enumerate(whole))
        if is_dataclass(whole) and not isinstance(whole, type) and type(whole) is type(part):
            names = [field.name for field in fields(whole)]
            return type(whole)(**{name: self.put(getattr(whole, name), getattr(part, name)) for name in names})
        raise BackboneError(
            f"The denoiser returned a {type(part).__name__} for {len(self.numbers)} rows that does not fit into what "
            "it returned for all of them, so that a part of a batch cannot be computed again."
        )


def detached(value: Any) -> Any:
    """Return a copy of a call's result that nothing else writes into."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, (list, tuple)):
        return type(value)(map(detached, value))
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{field.name: detached(getattr(value, field.name)) for field in fields(value)})
    return value
