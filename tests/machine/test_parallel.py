"""Work on all cores: in order, on one thread each, and over at the first error."""

import subprocess
import sys
import time

import pytest
import torch

from icm_pipeline.machine.threads import limit_threads, num_cores, one_thread_each, set_torch_threads


def test_results_come_in_the_order_of_the_pieces() -> None:
    def work(piece: int) -> int:
        time.sleep(0.02 * (3 - piece))
        return piece * piece

    assert list(one_thread_each(work, range(4), 4)) == [0, 1, 4, 9]


def test_each_piece_has_one_thread_and_the_caller_keeps_his() -> None:
    before = torch.get_num_threads()
    assert set(one_thread_each(lambda _: torch.get_num_threads(), range(4), 2)) == {1}
    assert torch.get_num_threads() == before


def test_afterwards_threads_that_never_asked_have_as_many_as_before() -> None:
    """In a fresh process: torch remembers the number for each thread that has asked."""
    script = """
import threading, torch
torch.set_num_threads(2)
from icm_pipeline.machine.threads import limit_threads, num_cores, one_thread_each, set_torch_threads
list(one_thread_each(abs, range(4), 2))
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
        list(one_thread_each(work, range(100), 2))


def test_work_on_all_cores_keeps_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icm_pipeline.machine.threads.os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    try:
        limit_threads(3)
        assert num_cores() == 3
        limit_threads(99)
        assert num_cores() == 8
    finally:
        limit_threads(None)
    assert num_cores() == 8


def test_torch_has_its_own_number_of_threads_again_after_a_model_that_asked_for_another() -> None:
    before = torch.get_num_threads()
    try:
        set_torch_threads(before + 3)
        assert torch.get_num_threads() == before + 3
    finally:
        set_torch_threads(None)
    assert torch.get_num_threads() == before
