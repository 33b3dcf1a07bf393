"""One lock for all who ask; whoever works unasked gives way to them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class GaveWayError(Exception):
    """Somebody asked, so what nobody asked for was left unfinished."""


class Turns:
    """A lock that knows whether anybody holds it or waits for it."""

    def __init__(self) -> None:
        self._lock, self._counting, self._asking = threading.Lock(), threading.Lock(), 0

    def __enter__(self) -> None:
        self._count(1)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._count(-1)

    @contextmanager
    def spare(self) -> Iterator[None]:
        """Hold the lock for what nobody asked for; `give_way` says when to end."""
        with self._lock:
            yield

    def give_way(self) -> None:
        """Raise GaveWayError if anybody asks."""
        if self._asking:
            raise GaveWayError

    def close(self) -> None:
        """Have `give_way` raise from now on."""
        self._count(1)

    def _count(self, more: int) -> None:
        with self._counting:
            self._asking += more
