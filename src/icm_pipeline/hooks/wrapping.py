"""A method put around another, and taken off again."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def wrapped(owner: Any, name: str, around: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Put `around(method, ...)` in a method's place; `functools.wraps` keeps the signature that pipelines inspect.

    Yields what stands there. If somebody else has put something into its place meanwhile, that stays.
    """
    method, own = getattr(owner, name), vars(owner).get(name)

    @functools.wraps(method)
    def calling(*args: Any, **kwargs: Any) -> Any:
        return around(method, *args, **kwargs)

    setattr(owner, name, calling)
    try:
        yield calling
    finally:
        if vars(owner).get(name) is calling:
            delattr(owner, name)
            if own is not None:  # a wrapper that was there before, as of an outer hooked()
                setattr(owner, name, own)


def is_around(owner: Any, name: str, calling: Callable[..., Any] | None) -> bool:
    """Say whether a call of a method still comes through what `wrapped` has put there.

    Offloading by accelerate puts a module's own forward back between two calls of a pipeline.
    """
    method = getattr(owner, name)
    while method is not None and method is not calling:
        method = getattr(method, "__wrapped__", None)
    return method is not None
