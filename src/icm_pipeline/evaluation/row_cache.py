"""A cache on disk of what judges and encoders answered for a set of images: a sweep judges the originals once.

An entry is one file in the folder of its images. Its name hashes the judge (settings and weights), the question and the
images' bytes. It is published by a rename: a killed job leaves none, and two jobs in a race write the same one.
"""

import hashlib
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from icm_pipeline.arrays import Floats
from icm_pipeline.store.caches import images_key
from icm_pipeline.store.files import hash_file, umask_mode
from icm_pipeline.store.fingerprints import make_key
from icm_pipeline.store.versions import library_versions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowCache:
    """The cache as one job sees it."""

    folder: Path
    """Of the entries, shared by all jobs."""
    scratch: Path
    """A folder of this job alone, on the same disk."""

    def rows(self, asked: Any, paths: Sequence[Path], look: Callable[[], Floats]) -> Floats:
        """Return a row per image at `paths`: the cached ones, or on a cache miss those that `look` returns.

        asked: plain data that identifies the judge and the question.
        """
        hashes = [hash_file(path) for path in paths]
        key = make_key([asked, hashes, library_versions()])
        entry = self.folder / images_key(hashes) / f"{key}.safetensors"
        found = _read(entry)
        if found is None:
            found = np.ascontiguousarray(look())
            partial = self.scratch / f"{key}.{uuid.uuid4().hex}.tmp"
            with umask_mode(partial):
                save_file({"rows": found}, partial, {"sha256": _digest(found)})
            entry.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(entry)
        return found


def _read(entry: Path) -> Floats | None:
    """Return an entry's rows; None on a cache miss or, with a warning, if the entry is damaged."""
    if not entry.exists():
        return None
    try:
        with safe_open(entry, framework="np") as file:
            rows: Floats = file.get_tensor("rows")
            whole = (file.metadata() or {}).get("sha256") == _digest(rows)
    except (OSError, SafetensorError):
        whole = False
    if not whole:
        log.warning("%s is damaged; looking at the images again", entry)
    return rows if whole else None


def _digest(rows: Floats) -> str:
    return hashlib.sha256(rows.tobytes()).hexdigest()
