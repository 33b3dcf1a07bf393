"""Cores and threads: pieces of work on all cores, and work beside that its caller need not wait for."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import torch
from threadpoolctl import threadpool_limits

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Args = ParamSpec("Args")

_limit: ContextVar[int | None] = ContextVar("limit", default=None)


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Within, this run works on at most so many cores at once, and torch with so many threads; None: without a limit.

    torch has one number for its whole process, which is as it was afterwards.
    """
    limit, before = _limit.set(count), torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _limit.reset(limit)


def num_cores() -> int:
    """Return how many cores this run may use."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, _limit.get() or there)


def single_threaded(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], num_threads: int | None = None
) -> Iterator[Result]:
    """Yield `work(piece)` in order, each piece on one thread, num_threads pieces at a time (None: as many as cores).

    An error of one piece ends all.
    """
    before = torch.get_num_threads()  # torch takes what a pool's thread sets for every thread that never asked
    with threadpool_limits(1, user_api="blas"):
        pool = ThreadPoolExecutor(num_threads or num_cores(), initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield from pool.map(work, pieces)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)


def read_ahead(work: Callable[[Piece], Result], pieces: Iterable[Piece], num_threads: int) -> Iterator[Result]:
    """Yield `work(piece)` in order while threads work on the next num_threads pieces, and on no more."""
    with ThreadPoolExecutor(num_threads) as pool:
        begun: deque[Future[Result]] = deque()
        try:
            for piece in pieces:
                begun.append(pool.submit(work, piece))
                if len(begun) >= num_threads:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class Background:
    """Threads that do pieces of work in the order given, as a context that ends when all are done.

    At most `most` pieces are unfinished: one more waits for the oldest, so that memory stays bounded. An error of a
    piece is raised again where the next one is given, or at the end.
    """

    def __init__(self, num_threads: int, most: int) -> None:
        self._pool = ThreadPoolExecutor(num_threads)
        self._most = most
        self._unfinished: deque[Future[Any]] = deque()

    def do(self, work: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Future[Result]:
        """Give a piece of work; raises what an earlier piece raised."""
        while self._unfinished and (self._unfinished[0].done() or len(self._unfinished) >= self._most):
            self._unfinished.popleft().result()
        future = self._pool.submit(work, *args, **kwargs)
        self._unfinished.append(future)
        return future

    def wait(self) -> None:
        """Wait until everything given is done; raises what a piece raised."""
        while self._unfinished:
            self._unfinished.popleft().result()

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self._pool.shutdown()  # after an error too: whoever left may remove the folder that is written to
