"""Atomic writes: a file or a folder takes its place by one rename."""

import contextlib
import errno
import hashlib
import json
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


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

    A killed job leaves the file as it was. Each writer has a sibling of its own. The file gets the umask's mode.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with umask_mode(partial):
            yield partial
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def umask_mode(path: Path) -> Iterator[None]:
    """Give a file that is written in this context the umask's mode; safetensors' files are for their owner alone."""
    path.touch()
    mode = path.stat().st_mode
    yield
    _set_mode(path, mode)


def spread_mode(like: Path) -> None:
    """Give all files beside and below `like` its mode; some libraries make files that only the owner reads."""
    for path in like.parent.rglob("*"):
        if path.is_file():
            _set_mode(path, like.stat().st_mode)


def _set_mode(path: Path, mode: int) -> None:
    if path.stat().st_mode != mode:
        with contextlib.suppress(PermissionError):  # another user's file, or a file system without modes
            path.chmod(stat.S_IMODE(mode))


def replace_folder(new: Path, folder: Path) -> None:
    """Rename a complete new folder into the place of an old one, if there is one."""
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
