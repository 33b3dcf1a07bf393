"""Making artifacts: by one job or by several that share the work, killed anywhere and gone on with, published once.

A job that builds or publishes holds the lock of the artifact's key; a job that makes a share of the work holds its
share's lock, and the key's only to begin and to end. A job that needs the folder to itself takes the key's lock and
waits for every share's; no share can begin meanwhile.
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
from icm_pipeline.store.artifacts import SHARDS, ArtifactError, open_artifact
from icm_pipeline.store.files import STORAGE_ERRORS, write_json
from icm_pipeline.store.locks import POLL_SECONDS, Lock, lock_names, locked
from icm_pipeline.store.manifest import Manifest, ShareEntry
from icm_pipeline.store.partial import (
    OLD,
    PARTIAL,
    is_begun,
    is_only_to_be_moved,
    move,
    partial_of,
    prepare,
    publish,
    refuse_other_versions,
    remove_if_empty,
)
from icm_pipeline.store.shards import Share

log = logging.getLogger(__name__)


@contextmanager
def building(folder: Path, manifest: Manifest, force: bool = False) -> Iterator[Path | None]:
    """Yield the folder to build an artifact in and publish it on a clean exit; yield None if another job just did.

    Only one process builds a key at a time; the others wait here. On an exception the partial folder stays for the
    next run, unless nothing was done in it. `manifest` says what is made; it is completed when that is published.
    """
    with _held(folder):
        folder = settled(folder)
        if not force and open_artifact(folder) is not None:
            yield None
            return
        if not _began(folder, manifest, afresh=True, force=force):
            yield None
            return
        partial, started = partial_of(folder), time.monotonic()
        try:
            with _disk_errors(folder):
                yield partial
                publish(partial, folder, manifest, time.monotonic() - started)
        finally:
            remove_if_empty(partial)


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
    folder = settled(folder)
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
    folder = settled(folder)
    if folder.exists():
        return []
    return [index for index in range(count) if not _mark(partial_of(folder), Share(index, count)).exists()]


def tidy(folder: Path) -> None:
    """Remove what a killed job left beside an artifact and no next one needs, unless a job is at work there."""
    with contextlib.suppress(OSError):
        old, partial = folder.with_name(folder.name + OLD), partial_of(folder)
        if not (_locks(folder) or old.exists() or partial.exists()):
            return
        with left_alone(folder) as alone:
            if alone:
                remove_if_empty(partial)
            if alone and folder.exists():
                shutil.rmtree(old, ignore_errors=True)


def is_being_built(folder: Path) -> bool:
    """Say whether a job builds this artifact or a share of it at the moment."""
    if not _locks(folder):
        return False
    with left_alone(folder) as alone:
        return not alone


@contextmanager
def left_alone(folder: Path) -> Iterator[bool]:
    """Yield whether no job builds this artifact or a share of it, and if so let none begin; this waits for nobody."""
    with contextlib.ExitStack() as held:

        def took(name: Path) -> bool:
            lock = Lock(name).try_now()
            if lock is not None:
                held.callback(lock.release)
            return lock is not None

        yield took(_lock_name(folder)) and all([took(name) for name in _share_locks(folder)])


def settled(folder: Path) -> Path:
    """Return where an artifact of the folder's key lies or is being built; a key has one folder, whoever names it.

    Attributes with the same prompts share their images, and the first of them gives the folder its name.
    """
    for ending in ("", PARTIAL):
        found = sorted(folder.parent.glob(f"*-{_key_of(folder)}{ending}"))
        names = [path.name.removesuffix(ending) for path in found]
        if names:
            return folder if folder.name in names else folder.with_name(names[0])
    return folder


def _key_of(folder: Path) -> str:
    return folder.name.rpartition("-")[2]


def _lock_name(folder: Path) -> Path:
    return folder.with_name(f".{_key_of(folder)}")


def _share_locks(folder: Path) -> list[Path]:
    """Return the names of the locks of shares that are held or were left behind."""
    return lock_names(folder.parent, f"{_lock_name(folder).name}.share-")


def _locks(folder: Path) -> list[Path]:
    own = [name for name in lock_names(folder.parent, _lock_name(folder).name) if name == _lock_name(folder)]
    return own + _share_locks(folder)


def _mark(partial: Path, share: Share) -> Path:
    return partial / SHARDS / f"share-{share.name}.json"


def _take_share(folder: Path, manifest: Manifest, share: Share, wait: bool) -> Lock | None:
    """Return the lock of a share that is to be made, None if there is nothing to do."""
    locker, told = Lock(folder.with_name(f"{_lock_name(folder).name}.share-{share.name}")), False
    while True:
        with _held(folder):
            folder = settled(folder)
            if open_artifact(folder) is not None or not _began(folder, manifest, afresh=False):
                return None
            if _mark(partial_of(folder), share).exists():
                return None
            lock = locker.try_now()
        if lock is not None or not wait:
            return lock
        if not told:
            log.info("waiting for another job that makes share %s of %s", share.name, folder.name)
            told = True
        time.sleep(5 * POLL_SECONDS)


def _began(folder: Path, manifest: Manifest, afresh: bool, force: bool = False) -> bool:
    """Make the partial folder ready, or publish one that is whole; return whether there is something left to do.

    afresh: wait until no other job is in it, remove what killed ones left half-written, and begin again what other
    versions began, which is refused without. force: go on from nothing but what a forced job began.
    """
    partial = partial_of(folder)
    with _disk_errors(folder):
        if not afresh:
            if is_begun(partial, manifest.key):
                return True
            refuse_other_versions(partial, manifest.key)  # rather now than after the wait for the jobs in it
        with _alone(folder):
            if not force and is_only_to_be_moved(partial, manifest):
                move(partial, folder)
                return False
            if not afresh:
                refuse_other_versions(partial, manifest.key)  # as finished meanwhile
            prepare(partial, manifest, force)
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait, with the folder's lock held, until no job makes a share any more; none can begin one meanwhile."""
    with contextlib.ExitStack() as held:
        for name in _share_locks(folder):
            held.enter_context(locked(name, f"makes a share of {folder.name}"))
        yield


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; raises ArtifactError where nothing can be written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = Lock(_lock_name(folder)).wait(f"builds {folder.name}")
    except OSError as error:
        raise ArtifactError(
            f"Cannot write to {folder.parent}: {error}. Set paths.outputs to a writable folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Say of an error that comes from the disk where the work is kept and how to go on."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not _is_about_storage(error):
            raise
        raise ArtifactError(
            f"Making {folder.name} failed: {error}. What is done is kept in {partial_of(folder)}; free some space or "
            "set paths.outputs to another folder, then run the same command again."
        ) from error


def _is_about_storage(error: Exception) -> bool:
    """Say whether an error comes from the disk; safetensors has an error of its own with the system's words."""
    if isinstance(error, OSError):
        return error.errno in STORAGE_ERRORS
    return any(os.strerror(number) in str(error) for number in STORAGE_ERRORS)
