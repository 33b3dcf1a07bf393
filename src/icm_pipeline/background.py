"""Work that its caller need not wait for, such as packing pictures and writing files, done by threads beside it."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

Args = ParamSpec("Args")
Result = TypeVar("Result")


class Background:
    """Threads that do pieces of work in the order given; to be used as a context, which ends when all are done.

    At most `most` pieces are unfinished: giving one more waits for the oldest, so that memory stays bounded. An error
    of a piece is raised again where the next one is given, or at the end.
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
