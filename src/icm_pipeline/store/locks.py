"""Locks between jobs: the system's where the file system has them, else leases, files with an owner and a heartbeat.

Both are filelock's. The system drops its own lock when the holder dies. A lease is taken over when its owner is a dead
process of this machine, or when it showed no heartbeat for a minute on the watcher's own clock, so that clocks need not
agree. Locks save work that would be done twice; what is published stays whole without them.
"""

import contextlib
import errno
import logging
import os
import tempfile
import time
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout, lock_descriptor

from icm_pipeline.store.artifacts import ArtifactError

log = logging.getLogger(__name__)

NO_SYSTEM_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # a file system never grants any
SUFFIX, LEASE_SUFFIX = ".lock", ".lease"
FILES_ONLY = "ICM_LOCKS"  # environment variable: `files` where a file system's locks hold on one machine only
POLL_SECONDS = 0.2
BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0  # a lease without a heartbeat for so long was left behind
OUT_SECONDS = 60.0  # how long to retry where the system is out of locks (ENOLCK)


class Lock(contextlib.AbstractContextManager["Lock"]):
    """The lock of one name (a path without suffix), which other processes and other `Lock`s of the name contend for."""

    def __init__(self, name: Path) -> None:
        self._name = name
        self._lock: BaseFileLock | None = None
        self._out_since: float | None = None

    def try_now(self) -> "Lock | None":
        """Return this lock if it could be taken, None while another job holds it or the system is out of locks.

        Raises OSError where no file can be made, ArtifactError if the system is out of locks for a minute of retries.
        """
        try:
            self._lock = self._lock or _lock_file(self._name)
            self._lock.acquire(blocking=False)
        except Timeout:
            self._out_since = None
            return None
        except OSError as error:
            if error.errno != errno.ENOLCK:
                raise
            now = time.monotonic()
            if self._out_since is None:  # a server that is full or restarting has locks again soon
                self._out_since = now
                log.warning("no lock to be had in %s at the moment (%s); trying again", self._name.parent, error)
            if now - self._out_since > OUT_SECONDS:
                raise ArtifactError(
                    f"The file system of {self._name.parent} granted no lock for {OUT_SECONDS:.0f} seconds ({error}). "
                    f"If it has none at all, set {FILES_ONLY}=files in the environment of every job; else try again "
                    "later."
                ) from error
            return None
        self._out_since = None
        return self

    def wait(self, reason: str) -> "Lock":
        """Wait until the lock is free, and return it; log once what is waited for."""
        if self.try_now() is None:
            log.info("waiting for another job that %s", reason)
            while self.try_now() is None:
                time.sleep(POLL_SECONDS)
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock back and remove its file."""
        assert self._lock is not None
        if not isinstance(self._lock, SoftFileLease):  # which removes its own
            with contextlib.suppress(OSError):
                Path(self._lock.lock_file).unlink()  # while held: filelock takes no lock of a file without a name
        self._lock.release()


def lock_names(folder: Path, prefix: str) -> list[Path]:
    """Return the names of the locks in a folder that begin with a prefix and are held or were left behind."""
    found = folder.glob(f"{prefix}*")
    return sorted({path.with_suffix("") for path in found if path.suffix in (SUFFIX, LEASE_SUFFIX)})


def _lock_file(name: Path) -> BaseFileLock:
    if os.environ.get(FILES_ONLY) == "files" or not _has_system_locks(name.parent):
        return SoftFileLease(
            f"{name}{LEASE_SUFFIX}", lease_duration=SILENT_SECONDS, heartbeat_interval=BEAT_SECONDS, thread_local=False
        )
    return FileLock(f"{name}{SUFFIX}", thread_local=False, fallback_to_soft=False)


def _has_system_locks(folder: Path) -> bool:
    """Return whether the file system of a folder has locks: tried on a file of one's own, which has no name there."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            lock_descriptor(file.fileno(), blocking=False)
        except OSError as error:
            if error.errno in NO_SYSTEM_LOCKS:
                return False
            raise
    return True
