"""Locks: one holder at a time, whoever dies, whatever the clock says, with and without the system's locks."""

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from icm_pipeline.store import locks
from icm_pipeline.store.artifacts import ArtifactError
from icm_pipeline.store.locks import Lock, lock_names

FORK = multiprocessing.get_context("fork")


def no_flock(*args: object) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def out_of_locks(*args: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.fixture(params=["system locks", "lock files", "lock files by choice"])
def lock_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "lock files":
        monkeypatch.setattr("fcntl.flock", no_flock)
    elif request.param == "lock files by choice":
        monkeypatch.setenv("ICM_LOCKS", "files")
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    return str(request.param)


def test_a_lock_has_one_holder_and_is_free_again_without_a_trace(tmp_path: Path, lock_kind: str) -> None:
    lock = Lock(tmp_path / ".a").try_now()
    assert lock is not None
    assert Lock(tmp_path / ".a").try_now() is None
    other = Lock(tmp_path / ".b").try_now()
    assert other is not None
    suffix = ".lock" if lock_kind == "system locks" else ".lease"
    assert {path.name for path in tmp_path.iterdir()} == {f".a{suffix}", f".b{suffix}"}
    assert lock_names(tmp_path, ".a") == [tmp_path / ".a"]
    lock.release()
    other.release()
    again = Lock(tmp_path / ".a").try_now()
    assert again is not None
    again.release()
    assert list(tmp_path.iterdir()) == []


def _hold(name: Path, ready: Path) -> None:
    with Lock(name).wait("test"):
        ready.touch()
        time.sleep(60)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, lock_kind: str) -> None:
    holder = FORK.Process(target=_hold, args=(tmp_path / ".a", tmp_path / "ready"))
    holder.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert holder.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert Lock(tmp_path / ".a").try_now() is None
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    Lock(tmp_path / ".a").wait("test").release()
    assert lock_names(tmp_path, ".a") == []


def _count(name: Path, counter: Path) -> None:
    for _ in range(5):
        with Lock(name).wait("test"):
            number = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(number + 1))


def test_eight_processes_never_hold_a_lock_at_once(tmp_path: Path, lock_kind: str) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    workers = [FORK.Process(target=_count, args=(tmp_path / ".a", counter)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert counter.read_text() == "40"


@pytest.fixture
def foreign_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file of a process on another machine."""
    monkeypatch.setattr("fcntl.flock", no_flock)
    path = tmp_path / ".a.lease"
    path.write_text("filelock/2\npid=1\nhost=another\nmode=lease\ntoken=x\nduration=60.0\n")
    return path


def test_another_machines_lock_file_is_respected_while_it_is_touched(
    foreign_lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])
    locker = Lock(foreign_lock.with_suffix(""))
    for beat in range(5):
        now[0] += locks.SILENT_SECONDS - 1
        os.utime(foreign_lock, (beat * 1000, beat * 1000))
        assert locker.try_now() is None
    now[0] += locks.SILENT_SECONDS + 1
    lock = locker.try_now()
    assert lock is not None
    lock.release()


@pytest.mark.parametrize("when", [0, 4_000_000_000])
def test_a_lock_files_age_by_the_clock_means_nothing(foreign_lock: Path, when: int) -> None:
    os.utime(foreign_lock, (when, when))
    assert Lock(foreign_lock.with_suffix("")).try_now() is None


def test_a_holder_touches_its_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", no_flock)
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    lock = Lock(tmp_path / ".a").try_now()
    assert lock is not None
    os.utime(tmp_path / ".a.lease", (0, 0))
    deadline = time.monotonic() + 30
    while (tmp_path / ".a.lease").stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lock.release()


def test_a_holder_that_was_replaced_leaves_its_successors_lock_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", no_flock)
    lock = Lock(tmp_path / ".a").try_now()
    assert lock is not None
    (tmp_path / "another").write_text("another's")
    (tmp_path / "another").rename(tmp_path / ".a.lease")
    lock.release()
    assert (tmp_path / ".a.lease").read_text() == "another's"


def test_a_system_that_is_out_of_locks_for_a_moment_gives_a_held_lock_to_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, second = Lock(tmp_path / ".a").try_now(), Lock(tmp_path / ".a")
    assert holder is not None
    assert second.try_now() is None
    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", out_of_locks)
        assert second.try_now() is None
        assert Lock(tmp_path / ".a").try_now() is None
    assert [path.name for path in tmp_path.iterdir()] == [".a.lock"]
    assert second.try_now() is None
    holder.release()
    lock = second.try_now()
    assert lock is not None
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_who_waits_gets_the_lock_when_the_system_has_locks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flock, refused = fcntl.flock, list[None]()

    def out_three_times(*args: object) -> None:
        if len(refused) < 3:
            refused.append(None)
            out_of_locks()
        flock(*args)

    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    monkeypatch.setattr("fcntl.flock", out_three_times)
    Lock(tmp_path / ".a").wait("test").release()
    assert caplog.text.count("no lock to be had") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_system_that_stays_out_of_locks_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(locks, "OUT_SECONDS", 0.1)
    monkeypatch.setattr("fcntl.flock", out_of_locks)
    with pytest.raises(ArtifactError, match="ICM_LOCKS=files"):
        Lock(tmp_path / ".a").wait("test")
    monkeypatch.setenv("ICM_LOCKS", "files")
    Lock(tmp_path / ".a").wait("test").release()


def test_a_lock_of_the_systems_that_others_may_hold_is_never_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Lock(tmp_path / ".a").try_now()
    assert holder is not None
    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", no_flock)
        Lock(tmp_path / ".a").try_now()
    assert (tmp_path / ".a.lock").exists()
    assert Lock(tmp_path / ".a").try_now() is None
    holder.release()


def test_a_place_that_cannot_be_written_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing"):
        Lock(tmp_path / "nothing" / ".a").try_now()


def test_locks_need_no_torch() -> None:
    code = "import sys, icm_pipeline.cli.housekeeping, icm_pipeline.store.locks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
