"""Locks between jobs: the system's where the file system has them, else files with an owner and a heartbeat.

The system drops its own lock when the holder dies. A lock file counts as left behind when its owner is a dead process
of this machine, or when it stayed the same for a minute on the watcher's own clock, so that nothing depends on clocks
that agree or only go forward. Locks save work that would be done twice; what is published stays whole without them.
"""

import contextlib
import errno
import json
import logging
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from icm_pipeline.store.artifacts import ArtifactError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
log = logging.getLogger(__name__)

NO_SYSTEM_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # a file system never grants any
SUFFIX, OWNER_SUFFIX = ".lock", ".owner"
FILES_ONLY = "ICM_LOCKS"  # environment variable: `files` where a file system's locks hold on one machine only
POLL_SECONDS = 0.2
BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0  # a lock file that shows no beat for so long was left behind
OUT_SECONDS = 60.0  # a system that is out of locks (ENOLCK) for so long is not waited for any more


class Lock(Protocol):
    def release(self) -> None:
        """Give the lock back and remove its file."""


class Locker:
    """Tries, again and again if need be, to take the lock of one name (a path without suffix)."""

    def __init__(self, name: Path) -> None:
        self._system = name.with_name(name.name + SUFFIX)
        self._owner = name.with_name(name.name + OWNER_SUFFIX)
        self._watched: tuple[Any, float] | None = None
        self._has_system_locks: bool | None = None
        self._out_since: float | None = None

    def try_now(self) -> Lock | None:
        """Return the lock, or None while another job holds it or the system is out of locks.

        Raises OSError where no file can be made, ArtifactError if the system is out of locks for a minute of trying.
        """
        try:
            if self._uses_system():
                lock = _take_system_lock(self._system)
                self._out_since = None
                return lock
        except OSError as error:
            if error.errno != errno.ENOLCK:
                raise
            self._bear_with(error)
            return None
        if self._is_left_behind():
            _remove_exactly(self._owner, self._watched[0][0] if self._watched else "")
            self._watched = None
        return _take_lock_file(self._owner)

    def wait(self, reason: str) -> Lock:
        """Return the lock as soon as it is free; say once what is waited for."""
        lock = self.try_now()
        if lock is None:
            log.info("waiting for another job that %s", reason)
        while lock is None:
            time.sleep(POLL_SECONDS)
            lock = self.try_now()
        return lock

    def _uses_system(self) -> bool:
        """Say whether the lock is the system's to give, and not a file with an owner."""
        if fcntl is None or os.environ.get(FILES_ONLY) == "files":
            return False
        if self._has_system_locks is None:
            self._has_system_locks = _has_system_locks(self._system.parent)
        return self._has_system_locks

    def _bear_with(self, error: OSError) -> None:
        """Let the caller try again, for a minute: a server that is restarted or full has locks again soon."""
        now = time.monotonic()
        if self._out_since is None:
            self._out_since = now
            log.warning("no lock to be had in %s at the moment (%s); trying again", self._system.parent, error)
        if now - self._out_since > OUT_SECONDS:
            raise ArtifactError(
                f"The file system of {self._system.parent} granted no lock for {OUT_SECONDS:.0f} seconds ({error}). If "
                f"it has none at all, set {FILES_ONLY}=files in the environment of every job; else try again later."
            ) from error

    def _is_left_behind(self) -> bool:
        try:
            with self._owner.open(encoding="utf-8") as file:
                seen = (file.read(), os.fstat(file.fileno()).st_mtime_ns)
        except (FileNotFoundError, UnicodeDecodeError):
            return False
        if self._watched is None or self._watched[0] != seen:
            self._watched = (seen, time.monotonic())
        return _owner_is_dead(seen[0]) or time.monotonic() - self._watched[1] > SILENT_SECONDS


@contextlib.contextmanager
def locked(name: Path, reason: str) -> Iterator[None]:
    """Hold the lock of a name, waiting for it if another job holds it."""
    lock = Locker(name).wait(reason)
    try:
        yield
    finally:
        lock.release()


def lock_names(folder: Path, prefix: str) -> list[Path]:
    """Return the names of the locks in a folder that begin with a prefix and are held or were left behind."""
    found = set()
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(prefix) and path.suffix in (SUFFIX, OWNER_SUFFIX):
            found.add(path.with_suffix(""))
    return sorted(found)


class _SystemLock:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def release(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)  # while held: who waits sees that the file is another one
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


def _has_system_locks(folder: Path) -> bool:
    """Say whether the file system of a folder has locks: tried on a file of one's own, which has no name there."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_SYSTEM_LOCKS:
                return False
            raise
    return True


def _take_system_lock(path: Path) -> Lock | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return _SystemLock(path, os.dup(descriptor))
    except (BlockingIOError, PermissionError):  # some file systems say that a held lock is not permitted
        pass
    finally:
        os.close(descriptor)
    return None


class _LockFile:
    """A file made exclusively, touched by a thread as long as it is held."""

    def __init__(self, path: Path, content: str) -> None:
        self._path = path
        self._content = content
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True, name="lock heartbeat").start()

    def release(self) -> None:
        self._over.set()
        _remove_exactly(self._path, self._content)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # a file system that is away for a moment comes back
                if self._path.read_text("utf-8") != self._content:
                    return  # taken over while this process was suspended
                os.utime(self._path)


def _take_lock_file(path: Path) -> Lock | None:
    content = json.dumps({"machine": _machine(), "pid": os.getpid(), "token": uuid.uuid4().hex})
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        return None
    return _LockFile(path, content)


def _remove_exactly(path: Path, content: str) -> None:
    """Remove a lock file if it is still the one with this content: by a rename, of which only one job's succeeds."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if aside.read_text("utf-8") != content:
            with contextlib.suppress(OSError):
                os.link(aside, path)  # another's: give it back, unless a third has made its own
        aside.unlink()


def _owner_is_dead(content: str) -> bool:
    """Say whether a lock file names a process of this machine that is gone; one still being written names none."""
    try:
        owner = json.loads(content)
        if owner["machine"] != _machine():
            return False
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError):
        return False
    return False


def _machine() -> str:
    """Return what tells this machine's processes from others': its name, and its container's if there is one."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return socket.gethostname()
