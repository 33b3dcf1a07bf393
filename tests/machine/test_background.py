"""Work in the background: all of it is done, memory is bounded, and an error is not lost."""

import threading
import time

import pytest

from icm_pipeline.machine.threads import Background


def test_everything_is_done_when_the_context_ends() -> None:
    done: list[int] = []
    with Background(3, most=5) as background:
        for number in range(20):
            background.do(done.append, number)
    assert sorted(done) == list(range(20))


def test_one_thread_keeps_the_order() -> None:
    done: list[int] = []
    with Background(1, most=5) as background:
        futures = [background.do(lambda n: done.append(n) or n * n, number) for number in range(9)]  # type: ignore[func-returns-value]
    assert done == list(range(9))
    assert [future.result() for future in futures] == [number * number for number in range(9)]


def test_no_more_than_so_many_wait() -> None:
    """Two can be given while none is done; of many, no more than two that were given are ever undone."""
    gate, lock, undone, most = threading.Event(), threading.Lock(), 0, 0

    def piece() -> None:
        nonlocal undone
        time.sleep(0.002)
        with lock:
            undone -= 1

    with Background(1, most=2) as background:
        first, second = background.do(gate.wait, 60), background.do(gate.wait, 60)
        assert not first.done()
        assert not second.done()
        gate.set()
    with Background(1, most=2) as background:
        for _ in range(12):
            background.do(piece)
            with lock:
                undone += 1
                most = max(most, undone)
    assert undone == 0
    assert most <= 2


def fail() -> None:
    raise OSError("the disk is full")


def test_an_error_is_raised_where_the_next_piece_is_given() -> None:
    background = Background(1, most=2)
    with pytest.raises(OSError, match="full"), background:
        first = background.do(fail)
        with pytest.raises(OSError, match="full"):
            first.result(10)
        background.do(pytest.fail, "was given after an error")


def test_an_error_of_the_last_piece_is_raised_at_the_end() -> None:
    with pytest.raises(OSError, match="full"), Background(1, most=2) as background:
        background.do(fail)


def test_after_an_error_of_the_callers_nothing_is_still_at_work() -> None:
    done: list[int] = []
    with pytest.raises(KeyError, match="mine"), Background(1, most=9) as background:
        for number in range(3):
            background.do(lambda n: (time.sleep(0.02), done.append(n)), number)
        background.do(fail)
        raise KeyError("mine")
    assert done == [0, 1, 2]
