"""A method put around another, and taken off again."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any


def wrap_method(owner: Any, name: str, around: Callable[..., Any], stack: ExitStack) -> None:
    """Put `around(method, ...)` in a method's place; `functools.wraps` keeps the signature that pipelines inspect."""
    method, own = getattr(owner, name), vars(owner).get(name)

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(method, *args, **kwargs)

    def unwrap() -> None:
        delattr(owner, name)
        if own is not None:  # a wrapper that was there before, as of an outer hooked()
            setattr(owner, name, own)

    setattr(owner, name, wrapped)
    stack.callback(unwrap)
