"""One thread at a time: hooks stand on the pipeline, so contexts of two threads would act on each other's calls."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from icm_pipeline.backbones.base import Backbone, BackboneError

_lock = threading.Lock()
# Who is in a context, by denoiser and scheduler.
_inside: WeakKeyDictionary[Any, list[tuple[int, object]]] = WeakKeyDictionary()


@contextmanager
def own_turn(backbone: Backbone) -> Iterator[int]:
    """Give the thread that may call the pipeline while the context lasts.

    Raises BackboneError if another thread or task is in such a context with the same denoiser or scheduler. Contexts of
    one can be nested.
    """
    me, parts = _who(), (backbone.denoiser, backbone.pipe.scheduler)
    with _lock:
        if any(not _may_nest(other, me) for part in parts for other in _inside.get(part, ())):
            raise BackboneError(
                f"Another thread or task is in a context with this {backbone.name}, or with one that shares its "
                "denoiser or scheduler, and hooks act on every call. Hold one lock around each whole `with` block, or "
                "give each thread a pipeline of its own."
            )
        for part in parts:
            _inside.setdefault(part, []).append(me)
    try:
        yield threading.get_ident()
    finally:
        with _lock:
            for part in parts:
                _inside[part].remove(me)


def check_turn(backbone: Backbone, thread: int) -> None:
    """Raise BackboneError for a call by another thread than the one in the context."""
    if threading.get_ident() != thread:
        raise BackboneError(
            f"This {backbone.name} is called by another thread than the one that is in a context with it, and hooks "
            "would act on the call. Enter the context in the thread that calls, and hold one lock around each whole "
            "`with` block."
        )


def _may_nest(outer: tuple[int, object], inner: tuple[int, object]) -> bool:
    """Say whether a context may begin inside another: of the same task, or of plain code of its thread."""
    return inner[0] == outer[0] and (outer[1] is None or inner[1] is outer[1])


def _who() -> tuple[int, object]:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        task = None
    return threading.get_ident(), task
