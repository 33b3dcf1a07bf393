"""What a denoiser was given and gave, call by call, and which rows of two runs differ."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import BackboneError


@dataclass(frozen=True)
class Seen:
    """One call of a denoiser."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: Mapping[str, Any]
    """By name."""
    rows: list[Tensor]
    """What it gave."""


def parts_of(output: Any) -> list[Tensor]:
    """Return the tensors of an output."""
    if isinstance(output, (tuple, list)):
        return [part for part in output if isinstance(part, Tensor)]
    return [output] if isinstance(output, Tensor) else []


def rows_of(output: Any) -> list[Tensor]:
    """Return a copy of each row of what a denoiser gave: of a tensor, or of a list with a tensor for each row."""
    first = output if isinstance(output, Tensor) else output[0]
    if isinstance(first, (list, tuple)):
        return [row.detach().clone() for row in first]
    return list(first.detach().clone().unbind())


@contextmanager
def watched(denoiser: nn.Module) -> Iterator[list[Seen]]:
    """Note every call of the denoiser while the context lasts."""
    calls: list[Seen] = []

    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        calls.append(Seen(args, kwargs, {**bound, **bound.get("kwargs", {})}, rows_of(output)))

    handle = denoiser.register_forward_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@contextmanager
def after_each(modules: Mapping[str, nn.Module], note: Callable[[str, Any], Any]) -> Iterator[None]:
    """Call note(name, output) after each of some modules while the context lasts; what it returns is the new output."""
    with ExitStack() as stack:
        for name, module in modules.items():

            def hook(module: nn.Module, args: Any, output: Any, name: str = name) -> Any:
                return note(name, output)

            stack.callback(module.register_forward_hook(hook).remove)
        yield


def first_of(calls: Sequence[Seen], denoiser: nn.Module) -> Seen:
    """Return the first call; raises BackboneError where there was none."""
    if not calls:
        raise BackboneError(
            f"The pipeline made its pictures without a call of its {type(denoiser).__name__}: it is not what denoises."
        )
    return calls[0]


def num_text_tokens(call: Seen) -> int | None:
    """Return how many tokens the text of a call has, None where it is not given by its usual name."""
    text = call.inputs.get("encoder_hidden_states")
    return text.shape[1] if isinstance(text, Tensor) and text.dim() == 3 else None


def changed_rows(old: Sequence[Tensor], new: Sequence[Tensor]) -> list[int]:
    """Return the rows in which two outputs differ."""
    return [row for row, (a, b) in enumerate(zip(old, new, strict=True)) if not torch.equal(a, b)]


def by_step(calls: Sequence[Seen], others: Sequence[Seen], num_steps: int) -> list[list[int]]:
    """Return the rows of each call of the first step that differ between two runs."""
    count = len(calls) // num_steps
    pairs = zip(calls[:count], others[:count], strict=True)
    return [changed_rows(one.rows, other.rows) for one, other in pairs]
