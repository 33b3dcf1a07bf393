"""Hashes: of the settings that a key stands for, of weights, of folders of pictures."""

import contextlib
import hashlib
import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

from icm_pipeline.store.artifacts import tell_if_long
from icm_pipeline.store.files import hash_file, write_json

NO_WEIGHTS = (".md", "quality.json", "training.json")  # lie beside weights and change nothing about them
MOST_WEIGHT_FILES = 2000
LARGE_FILE = 64_000_000  # bytes; hashing one takes long enough to remember the result


def make_key(content: Any) -> str:
    """Return 16 hexadecimal digits that change when the JSON form of `content` does, the order of mappings included."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(path: Path) -> str:
    """Return a short hash of a file's or folder's content, so that other weights at the same path are another key.

    Model cards and measured figures do not count. The hash of a large file is cached until its size or its time of
    change differ. Raises ValueError for a folder with so many files that it is no folder of weights.
    """
    files = (p for p in path.rglob("*") if p.is_file()) if path.is_dir() else iter([path])
    files = (p for p in files if not p.name.endswith(NO_WEIGHTS))
    paths = sorted(islice(files, MOST_WEIGHT_FILES + 1))
    if len(paths) > MOST_WEIGHT_FILES:
        raise ValueError(f"{path} holds more than {MOST_WEIGHT_FILES} files, so it is no folder of weights.")
    return make_key([[file.relative_to(path).as_posix(), file.stat().st_size, _hash(file)] for file in paths])


def stat_hash(folder: Path) -> str:
    """Return a short hash of the names, sizes and times of change of all files in a folder; none is read."""
    stats = [(path.relative_to(folder).as_posix(), path.stat()) for path in folder.rglob("*") if path.is_file()]
    return make_key(sorted([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats))


def _hash(path: Path) -> str:
    """Return a file's hash; that of a large one from the user's cache if it was not changed since."""
    stat, name = path.stat(), str(path.resolve())
    if stat.st_size <= LARGE_FILE:
        return hash_file(path)
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "icm_pipeline" / "weights.json"
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = dict(json.loads(cache.read_text("utf-8")))
        if known[name]["state"] == state:
            return str(known[name]["sha256"])
    tell_if_long(path, stat.st_size)
    digest = hash_file(path)
    with contextlib.suppress(OSError):  # without a cache it is hashed again
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {**known, name: {"state": state, "sha256": digest}})
    return digest
