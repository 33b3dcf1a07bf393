"""Calls of a denoiser that compute the rows of some images alone: what is cut out of a call, and put into its result.

A call's rows are parts of guidance, each with all images in order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any
from weakref import WeakKeyDictionary

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


def rows_of(images: Sequence[int], num_images: int, num_rows: int) -> list[int]:
    """Return the rows of some images, in every part of a call."""
    return [first + image for first in range(0, num_rows, num_images) for image in images]


def cut(inputs: dict[str, Any], rows: Tensor, num_rows: int, family: Family) -> dict[str, Any]:
    """Return the inputs of a call by name with some of its rows alone; what all rows share stays."""
    result = dict[str, Any]()
    for name, value in inputs.items():
        if name in family.inputs_by_row:
            result[name] = [value[row] for row in rows.tolist()]
        else:
            result[name] = value if name in family.shared_inputs else _cut(value, rows, num_rows)
    return result


def _cut(value: Any, rows: Tensor, num_rows: int) -> Any:
    if isinstance(value, Tensor):
        is_by_row = value.dim() > 0 and value.shape[0] == num_rows
        return value.index_select(0, rows.to(value.device)) if is_by_row else value
    if isinstance(value, dict):
        return {name: _cut(inside, rows, num_rows) for name, inside in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_cut(inside, rows, num_rows) for inside in value)
    return value


def put(whole: Any, part: Any, rows: Tensor) -> Any:
    """Return a call's result with the rows of another, of some rows alone, in their places; raises BackboneError."""
    if isinstance(whole, Tensor) and isinstance(part, Tensor) and len(part) == len(rows):
        return whole.index_copy(0, rows.to(whole.device), part.to(whole.dtype))
    if isinstance(whole, (list, tuple)) and type(whole) is type(part):
        if len(whole) == len(part):
            return type(whole)(put(old, new, rows) for old, new in zip(whole, part, strict=True))
        if len(part) == len(rows):  # a list by row
            new_of = dict(zip(rows.tolist(), part, strict=True))
            return type(whole)(new_of.get(row, old) for row, old in enumerate(whole))
    if is_dataclass(whole) and not isinstance(whole, type) and type(whole) is type(part):
        names = [field.name for field in fields(whole)]
        return type(whole)(**{name: put(getattr(whole, name), getattr(part, name), rows) for name in names})
    if whole is None and part is None:
        return None
    raise BackboneError(
        f"The denoiser returned a {type(part).__name__} for {len(rows)} rows that does not fit into what it returned "
        "for all of them, so that a part of a batch cannot be computed again."
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
