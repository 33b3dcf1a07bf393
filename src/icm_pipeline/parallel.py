"""Work on all cores: each piece on one thread, which small matrices like better than many threads on each piece."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Piece = TypeVar("Piece")
Result = TypeVar("Result")


_most: int | None = None
_torchs_own = torch.get_num_threads()


def limit_threads(count: int | None) -> None:
    """Let this process work on at most so many cores at once; None for all that it may use."""
    global _most
    _most = count


def set_torch_threads(count: int | None) -> None:
    """Give torch so many threads for one operation; None for its own choice."""
    torch.set_num_threads(count or _torchs_own)


def num_cores() -> int:
    """Return how many cores this process may use."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return there if _most is None else min(there, _most)


def one_thread_each(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], num_threads: int | None = None
) -> Iterator[Result]:
    """Yield `work(piece)` in order, num_threads at a time, None for as many as cores; an error of one ends all."""
    before = torch.get_num_threads()  # torch takes what a pool's thread sets for every thread that never asked
    with threadpool_limits(1, user_api="blas"):
        pool = ThreadPoolExecutor(num_threads or num_cores(), initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield from pool.map(work, pieces)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)


def in_threads(work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
    """Yield `work(piece)` in order, as many at a time as cores, for work on files; an error of one ends all."""
    pool = ThreadPoolExecutor(num_cores())
    try:
        yield from pool.map(work, pieces)
    finally:
        pool.shutdown(cancel_futures=True)
