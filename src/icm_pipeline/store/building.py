"""Making artifacts: by one job or by several that share the work; a killed job's work is resumed, and published once.

A job that builds or publishes holds the lock of the artifact's key. One that makes a share holds its share's lock, and
the key's only to begin and to end. One that needs the folder to itself takes the key's, so that no share can begin, and
waits for every share's.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError

from icm_pipeline.machine.devices import device_name
from icm_pipeline.store import partial as partials
from icm_pipeline.store.artifacts import SHARDS, ArtifactError, open_artifact
from icm_pipeline.store.files import STORAGE_ERRORS, write_json
from icm_pipeline.store.locks import POLL_SECONDS, Lock, lock_names
from icm_pipeline.store.manifest import Manifest, ShareEntry
from icm_pipeline.store.partial import OLD, PARTIAL, partial_of
from icm_pipeline.store.shards import Share

log = logging.getLogger(__name__)


@contextmanager
def building(folder: Path, manifest: Manifest, force: bool = False) -> Iterator[Path | None]:
    """Yield the folder to build an artifact in and publish it on a clean exit; yield None if another job just did.

    Only one process builds a key at a time; the others wait here. On an exception the partial folder stays for the
    next run, unless nothing was done in it. `manifest` says what is made; publishing completes it.
    """
    with _held(folder):
        folder = folder_of_key(folder)
        if (not force and open_artifact(folder) is not None) or not _begin(folder, manifest, shared=False, force=force):
            yield None
            return
        partial, started = partial_of(folder), time.monotonic()
        try:
            with _disk_errors(folder):
                yield partial
                partials.publish(partial, folder, manifest, time.monotonic() - started)
        finally:
            partials.remove_if_empty(partial)


@contextmanager
def building_share(folder: Path, manifest: Manifest, share: Share, wait: bool) -> Iterator[Path | None]:
    """Yield the folder to make one share of an artifact in; yield None if the share or the whole is there.

    Without `wait` also None if another job makes the share at the moment, else wait for that job; one that dies is
    replaced. The share counts as made on a clean exit. Raises ArtifactError if others were made with other versions.
    """
    lock = _take_share(folder, manifest, share, wait)
    if lock is None:
        yield None
        return
    folder = folder_of_key(folder)
    partial, started = partial_of(folder), time.monotonic()
    try:
        with _disk_errors(folder):
            yield partial
            seconds = round(time.monotonic() - started, 3)
            made = ShareEntry(share.name, seconds, manifest.device, device_name(manifest.device))
            write_json(_mark(partial, share), asdict(made))
    finally:
        lock.release()
        tidy(folder)


def missing_shares(folder: Path, count: int) -> list[int]:
    """Return the shares, of so many, that are not made yet; none if the artifact is there."""
    folder = folder_of_key(folder)
    shares = () if folder.exists() else range(count)
    return [index for index in shares if not _mark(partial_of(folder), Share(index, count)).exists()]


def tidy(folder: Path) -> None:
    """Remove what a killed job left beside an artifact and no job will resume, unless a job is at work there."""
    with contextlib.suppress(OSError):
        old, partial = folder.with_name(folder.name + OLD), partial_of(folder)
        if not (_locks(folder) or old.exists() or partial.exists()):
            return
        with locked_or_skip(folder) as is_locked:
            if is_locked:
                partials.remove_if_empty(partial)
            if is_locked and folder.exists():
                shutil.rmtree(old, ignore_errors=True)


def is_being_built(folder: Path) -> bool:
    """Return whether a job builds this artifact or a share of it at the moment."""
    if not _locks(folder):
        return False
    with locked_or_skip(folder) as is_locked:
        return not is_locked


@contextmanager
def locked_or_skip(folder: Path) -> Iterator[bool]:
    """Hold all locks of an artifact, so that no job can begin; yield False, without waiting, if a job holds one."""
    with contextlib.ExitStack() as held:

        def took(name: Path) -> bool:
            lock = Lock(name).try_now()
            return lock is not None and held.enter_context(lock) is lock

        yield took(_lock_name(folder)) and all([took(name) for name in _locks(folder, "share-")])


def folder_of_key(folder: Path) -> Path:
    """Return where the artifact of a folder's key lies or is being built: the first attribute with it gave the name."""
    for ending in ("", PARTIAL):
        found = sorted(folder.parent.glob(f"*-{_key_of(folder)}{ending}"))
        names = [path.name.removesuffix(ending) for path in found]
        if names:
            return folder if folder.name in names else folder.with_name(names[0])
    return folder


def _key_of(folder: Path) -> str:
    return folder.name.rpartition("-")[2]


def _lock_name(folder: Path, share: str = "") -> Path:
    return folder.with_name(f".{_key_of(folder)}{share}")


def _locks(folder: Path, kind: str = "") -> list[Path]:
    """Return the names of an artifact's locks, or only its shares', that are held or were left behind."""
    return lock_names(folder.parent, f"{_lock_name(folder).name}.{kind}")


def _mark(partial: Path, share: Share) -> Path:
    return partial / SHARDS / f"share-{share.name}.json"


def _take_share(folder: Path, manifest: Manifest, share: Share, wait: bool) -> Lock | None:
    """Return the lock of a share that is to be made, None if there is nothing to do."""
    lock, told = Lock(_lock_name(folder, f".share-{share.name}")), False
    while True:
        with _held(folder):
            folder = folder_of_key(folder)
            if open_artifact(folder) is not None or not _begin(folder, manifest, shared=True):
                return None
            taken = lock.try_now()
            if taken and _mark(partial_of(folder), share).exists():  # with the lock held, as no job can add it now
                taken.release()
                return None
        if taken or not wait:
            return taken
        if not told:
            log.info("waiting for another job that makes share %s of %s", share.name, folder.name)
            told = True
        time.sleep(5 * POLL_SECONDS)


def _begin(folder: Path, manifest: Manifest, shared: bool, force: bool = False) -> bool:
    """Prepare the partial folder, or publish a complete one; return whether there is something left to do.

    shared: join the jobs that are in it, unless they have other versions, which raises. Else wait until no other job is
    in it and resume what has these versions. force: resume nothing but what a forced job began.
    """
    partial = partial_of(folder)
    with _disk_errors(folder):
        if shared and partials.is_begun(partial, manifest.key):
            return True
        if shared:
            partials.check_versions(partial, manifest.key)  # rather now than after the wait
        with contextlib.ExitStack() as held:
            for name in _locks(folder, "share-"):  # no job can begin a share meanwhile, as the folder's lock is held
                held.enter_context(Lock(name).wait(f"makes a share of {folder.name}"))
            if not force and partials.is_complete(partial, manifest.key):
                partials.move(partial, folder)
                return False
            if shared:
                partials.check_versions(partial, manifest.key)  # of what was made meanwhile
            partials.prepare(partial, manifest, force)
    return True


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; raises ArtifactError where nothing can be written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = Lock(_lock_name(folder)).wait(f"builds {folder.name}")
    except OSError as error:
        told = f"Cannot write to {folder.parent}: {error}. Set paths.outputs to a writable folder."
        raise ArtifactError(told) from error
    with lock:
        yield


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into an ArtifactError that says where the work is kept and how to resume it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        words = (number for number in STORAGE_ERRORS if os.strerror(number) in str(error))  # all that safetensors has
        if (error.errno if isinstance(error, OSError) else next(words, None)) not in STORAGE_ERRORS:
            raise
        raise ArtifactError(
            f"Making {folder.name} failed: {error}. What is done is kept in {partial_of(folder)}; free some space or "
            "set paths.outputs to another folder, then run the same command again."
        ) from error
