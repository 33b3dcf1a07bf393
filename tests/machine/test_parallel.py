"""Work on all cores: in order, on one thread each, and over at the first error."""

import subprocess
import sys
import threading
import time

import pytest
import torch

from icm_pipeline.machine.threads import limited_threads, num_cores, read_ahead, single_threaded


def test_results_come_in_the_order_of_the_pieces() -> None:
    def work(piece: int) -> int:
        time.sleep(0.02 * (3 - piece))
        return piece * piece

    assert list(single_threaded(work, range(4), 4)) == [0, 1, 4, 9]


def test_each_piece_has_one_thread_and_the_caller_keeps_his() -> None:
    before = torch.get_num_threads()
    assert set(single_threaded(lambda _: torch.get_num_threads(), range(4), 2)) == {1}
    assert torch.get_num_threads() == before


def test_afterwards_threads_that_never_asked_have_as_many_as_before() -> None:
    """In a fresh process: torch remembers the number for each thread that has asked."""
    script = """
import threading, torch
torch.set_num_threads(2)
from icm_pipeline.machine.threads import single_threaded
list(single_threaded(abs, range(4), 2))
seen = [torch.get_num_threads()]
other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
other.start(), other.join()
print(seen)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[2, 2]"


def test_an_error_of_one_piece_reaches_the_caller() -> None:
    def work(piece: int) -> int:
        if piece == 1:
            raise ValueError("piece 1 is broken")
        return piece

    with pytest.raises(ValueError, match="piece 1 is broken"):
        list(single_threaded(work, range(100), 2))


def test_work_on_all_cores_keeps_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icm_pipeline.machine.threads.os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    with limited_threads(3):
        assert num_cores() == 3
        with limited_threads(99):
            assert num_cores() == 8
        assert num_cores() == 3
    assert num_cores() == 8


def test_a_limit_is_that_of_its_run() -> None:
    """Two runs in two threads; one that has no limit is not held to the other's."""
    seen: list[int] = []
    with limited_threads(1):
        other = threading.Thread(target=lambda: seen.append(num_cores()))
        other.start(), other.join()
    assert seen == [num_cores()]


def test_torch_has_its_own_number_of_threads_again_after_a_run_that_asked_for_another() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), limited_threads(before + 3):
        assert torch.get_num_threads() == before + 3
        raise KeyError
    assert torch.get_num_threads() == before
    with limited_threads(None):
        assert torch.get_num_threads() == before


def test_pieces_read_ahead_come_in_order_and_no_more_than_so_many_wait() -> None:
    lock, begun, most = threading.Lock(), 0, 0
    taken = 0

    def work(piece: int) -> int:
        nonlocal begun, most
        with lock:
            begun += 1
            most = max(most, begun - taken)
        time.sleep(0.005 * (piece % 3))
        return piece * piece

    for expected, found in enumerate(read_ahead(work, range(12), 3)):
        assert found == expected * expected
        with lock:
            taken += 1
    assert most == 3
    assert taken == 12


def test_an_error_while_reading_ahead_reaches_the_caller_and_ends_the_rest() -> None:
    begun: list[int] = []

    def work(piece: int) -> int:
        begun.append(piece)
        if piece == 1:
            raise RuntimeError("the second piece")
        return piece

    with pytest.raises(RuntimeError, match="second piece"):
        list(read_ahead(work, range(100), 2))
    assert len(begun) < 6
