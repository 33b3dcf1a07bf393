"""Results on disk: folders that are whole or not there, each with a manifest that says what made it.

An artifact is built in `<folder>.partial`, which also survives a killed job so that the next one goes on from its last
whole shard, and becomes `<folder>` by one rename once every file is hashed into `manifest.json`.
"""

import errno
import hashlib
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

log = logging.getLogger(__name__)

FORMAT_VERSION = 3
MANIFEST = "manifest.json"
STAMP = ".building.json"  # in a partial folder: which key and which versions it was begun with
SHARDS = "shards"  # in a partial folder: what a killed job goes on from; no part of the artifact
NO_WEIGHTS = (".md", "quality.json", "training.json")  # lie beside weights and change nothing about them
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
MOST_WEIGHT_FILES = 2000
LIBRARIES = ("torch", "diffusers", "transformers", "scikit-learn", "numpy", "open_clip_torch", "safetensors")


class ArtifactError(RuntimeError):
    """An artifact that is missing, damaged, or cannot be written; the message says what to do."""


@dataclass(frozen=True)
class Artifact:
    """A whole artifact: where it lies and what its manifest says."""

    folder: Path
    manifest: dict[str, Any] = field(repr=False)

    @property
    def key(self) -> str:
        return str(self.manifest["key"])

    def path(self, name: str) -> Path:
        """Return the path of a file the manifest lists."""
        if name not in self.manifest["files"]:
            raise ArtifactError(f"{self.folder} has no file {name!r}; it lists {sorted(self.manifest['files'])[:8]}.")
        return self.folder / name

    def read_json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text("utf-8"))


def make_key(content: Any) -> str:
    """Return 16 hexadecimal digits that change when the JSON form of `content` does."""
    text = json.dumps(content, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON through a temporary sibling, so that a reader never sees half of it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(path)


def open_artifact(folder: Path) -> Artifact | None:
    """Return the artifact in a folder, None if there is none; raises ArtifactError if its manifest or sizes are off."""
    if not folder.exists():
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        sizes = {name: entry["size"] for name, entry in manifest["files"].items() if entry["sha256"]}
        complete = sizes and manifest["key"] and manifest["stage"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(_damaged(folder, f"its {MANIFEST} cannot be read ({error!r})")) from error
    if not complete:
        raise ArtifactError(_damaged(folder, f"its {MANIFEST} names no files, no key or no stage"))
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(_damaged(folder, f"{name} is missing"))
        if path.stat().st_size != size:
            raise ArtifactError(_damaged(folder, f"{name} has {path.stat().st_size} bytes instead of {size}"))
    return Artifact(folder, manifest)


def verify(artifact: Artifact) -> Artifact:
    """Re-hash every file and return the artifact; raises ArtifactError naming the first file that differs."""
    for name, entry in artifact.manifest["files"].items():
        if hash_file(artifact.folder / name) != entry["sha256"]:
            raise ArtifactError(_damaged(artifact.folder, f"{name} was changed after it was written"))
    return artifact


def _damaged(folder: Path, what: str) -> str:
    return f"The artifact {folder} is damaged: {what}. Delete that folder and run again to rebuild it."


@contextmanager
def building(folder: Path, description: dict[str, Any], force: bool = False) -> Iterator[Path | None]:
    """Yield the folder to build an artifact in and publish it on a clean exit; yield None if another job just did.

    Only one process builds a key at a time; the others wait here. On an exception the partial folder stays for the
    next run, unless nothing was done in it. `description` (stage, key, configuration, parents) goes into the manifest.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another job that builds %s", folder.name)
            lock.acquire()
    except OSError as error:
        raise ArtifactError(
            f"Cannot write to {folder.parent}: {error}. Set paths.outputs to a writable folder."
        ) from error
    try:
        if not force and open_artifact(folder) is not None:
            yield None
            return
        partial = folder.with_name(f"{folder.name}.partial")
        _prepare(partial, description)
        started = time.time()
        try:
            yield partial
            _publish(partial, folder, description, started)
        except (OSError, SafetensorError) as error:
            if not _is_about_storage(error):
                raise
            raise ArtifactError(
                f"Making {folder.name} failed: {error}. What is done is kept in {partial}; free some space or set "
                "paths.outputs to another folder, then run the same command again."
            ) from error
        finally:
            _remove_if_empty(partial)
    finally:
        lock.release()


def _is_about_storage(error: Exception) -> bool:
    """Say whether an error comes from the disk; safetensors has an error of its own with the system's words."""
    if isinstance(error, OSError):
        return error.errno in STORAGE_ERRORS
    return any(os.strerror(number) in str(error) for number in STORAGE_ERRORS)


def _remove_if_empty(partial: Path) -> None:
    """Remove a partial folder in which nothing was done, so that a refused job leaves nothing behind."""
    if partial.exists() and not any(path.is_file() and path.name != STAMP for path in partial.rglob("*")):
        shutil.rmtree(partial)


def _prepare(partial: Path, description: dict[str, Any]) -> None:
    """Keep an earlier partial folder of the same key and code version, start afresh otherwise."""
    stamp = partial / STAMP
    origin = {"key": description["key"], "format": FORMAT_VERSION, "libraries": library_versions()}
    try:
        kept = stamp.exists() and json.loads(stamp.read_text("utf-8")) == origin
    except ValueError:
        kept = False
    if partial.exists() and not kept:
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    for leftover in partial.rglob("*.tmp"):
        leftover.unlink()
    write_json(stamp, origin)


def _publish(partial: Path, folder: Path, description: dict[str, Any], started: float) -> None:
    names = sorted(path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file())
    files = {
        name: {"size": (partial / name).stat().st_size, "sha256": hash_file(partial / name)}
        for name in names
        if name not in (MANIFEST, STAMP) and not name.startswith(f"{SHARDS}/")
    }
    write_json(
        partial / MANIFEST,
        {
            **description,
            "format": FORMAT_VERSION,
            "files": files,
            "libraries": library_versions(),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.time() - started, 3),
        },
    )
    replace_folder(partial, folder)
    (folder / STAMP).unlink()
    shutil.rmtree(folder / SHARDS, ignore_errors=True)


def replace_folder(new: Path, folder: Path) -> None:
    """Give a whole new folder the place of an old one, if there is one, by renames."""
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def library_versions() -> dict[str, str]:
    versions = {}
    for name in ("icm_pipeline", *LIBRARIES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def fingerprint(path: Path) -> str:
    """Return a short hash of a file's or folder's content, so that other weights at the same path are another key.

    Model cards and measured figures do not count. Files over 64 MB count by size and time of change instead of by
    content. Raises ValueError for a folder with so many files that it is no folder of weights.
    """
    files = (p for p in path.rglob("*") if p.is_file()) if path.is_dir() else iter([path])
    files = (p for p in files if not p.name.endswith(NO_WEIGHTS))
    paths = sorted(islice(files, MOST_WEIGHT_FILES + 1))
    if len(paths) > MOST_WEIGHT_FILES:
        raise ValueError(f"{path} holds more than {MOST_WEIGHT_FILES} files, so it is no folder of weights.")
    entries = []
    for file in paths:
        stat = file.stat()
        content = hash_file(file) if stat.st_size <= 64_000_000 else str(stat.st_mtime_ns)
        entries.append([file.relative_to(path).as_posix(), stat.st_size, content])
    return make_key(entries)


def listing(folder: Path) -> str:
    """Return a short hash of which files lie in a folder, their sizes and times of change, however many they are."""
    stats = [(path.relative_to(folder).as_posix(), path.stat()) for path in folder.rglob("*") if path.is_file()]
    return make_key(sorted([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats))
