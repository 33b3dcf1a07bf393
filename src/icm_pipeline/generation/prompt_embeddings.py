"""Prompts encoded once: every batch of a set has the same few prompts, often the same list of them.

What a pipeline's `encode_prompt` returned is returned again where it is called with the same values, whatever the
family makes of a prompt; nothing is sliced or put together anew, so that the images are the same bitwise.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from icm_pipeline.hooks.wrapping import wrapped

MOST_BYTES = 256_000_000  # of embeddings that are kept for a pipeline; they lie on its device


class _Encoded:
    """What a pipeline's prompts were encoded to, the least recently used forgotten first."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, Any] = OrderedDict()

    def encode(self, encode_prompt: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if next(_tensors((args, kwargs)), None) is not None:  # embeddings of the caller's own
            return encode_prompt(*args, **kwargs)
        asked = repr((args, sorted(kwargs.items())))
        if asked not in self._found:
            self._found[asked] = encode_prompt(*args, **kwargs)
            while len(self._found) > 1 and sum(t.nbytes for t in _tensors(list(self._found.values()))) > MOST_BYTES:
                self._found.popitem(last=False)
        self._found.move_to_end(asked)
        return _copied(self._found[asked])


# By pipeline, so two runs share nothing here unless they share a model.
_ENCODED: WeakKeyDictionary[Any, _Encoded] = WeakKeyDictionary()


@contextmanager
def remembered_prompts(pipe: Any) -> Iterator[None]:
    """Let a pipeline encode no prompts twice that it encoded in an earlier such context; OmniGen encodes none apart."""
    if not hasattr(pipe, "encode_prompt"):
        yield
        return
    encoded = _ENCODED.setdefault(pipe, _Encoded())
    with wrapped(pipe, "encode_prompt", encoded.encode):
        yield


@contextmanager
def other_prompts(pipe: Any) -> Iterator[None]:
    """Let a pipeline encode every prompt anew, and forget them at the end: for while its text encoders are others."""
    before = _ENCODED.pop(pipe, None)
    try:
        yield
    finally:
        _ENCODED.pop(pipe, None)
        if before is not None:
            _ENCODED[pipe] = before


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from _tensors(list(values.values()))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)


def _copied(values: Any) -> Any:
    """Return lists and tuples anew, so that a pipeline that extends one leaves what is kept alone."""
    return type(values)(map(_copied, values)) if isinstance(values, (list, tuple)) else values
