"""A method put around another, and taken off again."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def wrapped(owner: Any, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """Put `around(method, ...)` in a method's place; `functools.wraps` keeps the signature that pipelines inspect."""
    method, own = getattr(owner, name), vars(owner).get(name)

    @functools.wraps(method)
    def calling(*args: Any, **kwargs: Any) -> Any:
        return around(method, *args, **kwargs)

    setattr(owner, name, calling)
    try:
        yield
    finally:
        delattr(owner, name)
        if own is not None:  # a wrapper that was there before, as of an outer hooked()
            setattr(owner, name, own)
