"""Results on disk: folders that are whole or not there, each with a manifest that says what made it.

How one is made is in building.py; here is what it is: its manifest, its key, how it is read and checked.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

FORMAT_VERSION = 5
MANIFEST = "manifest.json"
STAMP = ".building.json"  # in a partial folder: which key and which versions it was begun with
LABELS, SCORES, SELECTION, STEERING, METRICS = (
    "labels.csv",
    "scores.json",
    "selection.json",
    "steering.json",
    "metrics.json",
)  # stages meet by these
SHARDS = "shards"  # in a partial folder: what a killed job goes on from; no part of the artifact
NO_WEIGHTS = (".md", "quality.json", "training.json")  # lie beside weights and change nothing about them
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
MOST_WEIGHT_FILES = 2000
LONG_TO_HASH = 2_000_000_000  # bytes; the log says that they are being hashed
LARGE_FILE = 64_000_000  # bytes; hashing one takes long enough to remember the result
LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "open_clip_torch", "safetensors")


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
    """Return a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON through a temporary sibling, so that a reader never sees half of it."""
    with written_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling to write; on a clean exit it takes the file's place by one rename, else it is removed.

    A killed job leaves the file as it was. Its mode is what the umask asks for. Each writer has a sibling of its own.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with umask_mode(partial):
            yield partial
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def umask_mode(path: Path) -> Iterator[None]:
    """Give a file that is written within the mode the umask asks for; safetensors would make it for its owner alone."""
    path.touch()
    mode = path.stat().st_mode
    yield
    _set_mode(path, mode)


def spread_mode(like: Path) -> None:
    """Give all files beside and below `like` its mode, the umask's; some libraries make files for their owner alone."""
    for path in like.parent.rglob("*"):
        if path.is_file():
            _set_mode(path, like.stat().st_mode)


def _set_mode(path: Path, mode: int) -> None:
    if path.stat().st_mode != mode:
        with contextlib.suppress(PermissionError):  # another user's file, or a file system without modes
            path.chmod(stat.S_IMODE(mode))


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
        if not path.is_relative_to(folder) or ".." in path.parts[len(folder.parts) :]:
            raise ArtifactError(_damaged(folder, f"its {MANIFEST} lists {name}, which lies outside the folder"))
        if not path.is_file():
            raise ArtifactError(_damaged(folder, f"{name} is missing"))
        if path.stat().st_size != size:
            raise ArtifactError(_damaged(folder, f"{name} has {path.stat().st_size} bytes instead of {size}"))
    return Artifact(folder, manifest)


def verify(artifact: Artifact) -> Artifact:
    """Re-hash every file and return the artifact; raises ArtifactError naming the first file that differs."""
    _tell_if_long(artifact.folder, sum(entry["size"] for entry in artifact.manifest["files"].values()))
    for name, entry in artifact.manifest["files"].items():
        if hash_file(artifact.folder / name) != entry["sha256"]:
            raise ArtifactError(_damaged(artifact.folder, f"{name} was changed after it was written"))
    return artifact


def _tell_if_long(path: Path, size: int) -> None:
    if size >= LONG_TO_HASH:
        log.info("hashing %.1f GB of %s", size / 1e9, path)


def _damaged(folder: Path, what: str) -> str:
    return f"The artifact {folder} is damaged: {what}. Delete that folder and run again to rebuild it."


def replace_folder(new: Path, folder: Path) -> None:
    """Give a whole new folder the place of an old one, if there is one, by renames."""
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def library_versions() -> dict[str, str]:
    """Return the installed versions of this package and of the libraries whose results it keeps."""
    versions = {}
    for name in ("icm_pipeline", *LIBRARIES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def fingerprint(path: Path) -> str:
    """Return a short hash of a file's or folder's content, so that other weights at the same path are another key.

    Model cards and measured figures do not count. The hash of a large file is remembered while its size and its time of
    change stay what they were. Raises ValueError for a folder with so many files that it is no folder of weights.
    """
    files = (p for p in path.rglob("*") if p.is_file()) if path.is_dir() else iter([path])
    files = (p for p in files if not p.name.endswith(NO_WEIGHTS))
    paths = sorted(islice(files, MOST_WEIGHT_FILES + 1))
    if len(paths) > MOST_WEIGHT_FILES:
        raise ValueError(f"{path} holds more than {MOST_WEIGHT_FILES} files, so it is no folder of weights.")
    entries = []
    for file in paths:
        size = file.stat().st_size
        content = hash_file(file) if size <= LARGE_FILE else _remembered_hash(file)
        entries.append([file.relative_to(path).as_posix(), size, content])
    return make_key(entries)


def listing(folder: Path) -> str:
    """Return a short hash of which files lie in a folder, their sizes and times of change, however many they are."""
    stats = [(path.relative_to(folder).as_posix(), path.stat()) for path in folder.rglob("*") if path.is_file()]
    return make_key(sorted([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats))


def _remembered_hash(path: Path) -> str:
    """Return a file's hash, from the user's cache if the file is the one it was taken of."""
    stat, name = path.stat(), str(path.resolve())
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "icm_pipeline" / "weights.json"
    try:
        known = json.loads(cache.read_text("utf-8"))
        if known[name]["state"] == state:
            return str(known[name]["sha256"])
    except (OSError, ValueError):
        known = {}
    except (KeyError, TypeError):
        known = known if isinstance(known, dict) else {}
    _tell_if_long(path, stat.st_size)
    digest = hash_file(path)
    with contextlib.suppress(OSError):  # without a cache it is hashed again
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {**known, name: {"state": state, "sha256": digest}})
    return digest
