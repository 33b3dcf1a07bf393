"""Caches that stages keep beside their artifacts, and which of their entries are stale.

A cache can be deleted at any time: what it held is computed again. `.prefixes`, beside the originals, has a folder per
set of originals, first steered step, versions of the libraries and kind of device; `.judged`, beside the evaluations, a
folder per set of images.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from icm_pipeline.store.fingerprints import make_key
from icm_pipeline.store.garbage import Waste, last_change
from icm_pipeline.store.partial import PARTIAL
from icm_pipeline.store.shelf import Shelf
from icm_pipeline.store.versions import library_versions

PREFIXES = ".prefixes"
JUDGED = ".judged"
PICTURES = "images/"  # how the names of an artifact's pictures begin


def images_key(hashes: Iterable[str]) -> str:
    """Return the key of a set of images, from the hashes of its files in any order."""
    return make_key(sorted(hashes))


def prefix_folder(originals: Path, key: str, first_step: int, device: str) -> Path:
    """Return the cache of the steps before the first steered one, for all runs with the originals of this key.

    originals: the folder of the stage's artifacts. Other versions of the libraries and another kind of device round
    otherwise, so they have a cache of their own.
    """
    made_by = make_key([library_versions(), device.partition(":")[0]])[:8]
    return originals / PREFIXES / f"{key}-{first_step}-{made_by}"


def find_caches(shelf: Shelf) -> list[Waste]:
    """Return every entry of the caches."""
    return [Waste(path, "a cache") for path in _entries(shelf)]


def find_stale_caches(shelf: Shelf, hours: float, going: Iterable[Waste] = ()) -> list[Waste]:
    """Return the entries for originals or images that no artifact holds, apart from those that are going.

    What was changed within the last so many hours stays, and what belongs to half-made originals that stay.
    """
    gone = {item.path for item in going}
    staying = {key: artifact for key, artifact in shelf.artifacts.items() if artifact.folder not in gone}
    held = {
        images_key(entry.sha256 for name, entry in artifact.manifest.files.items() if name.startswith(PICTURES))
        for artifact in staying.values()
    }
    youngest, stale = time.time() - 3600 * hours, []
    for path in _entries(shelf):
        key = path.name.partition("-")[0]
        if path.parent.name == JUDGED:
            needed, reason = key in held, "judged images that no artifact holds"
        else:
            half_made = path.parent.parent.glob(f"*-{key}{PARTIAL}")
            needed = key in staying or any(partial not in gone for partial in half_made)
            reason = "first steps of originals that are gone"
        if not needed and last_change(path) <= youngest:
            stale.append(Waste(path, reason))
    return stale


def _entries(shelf: Shelf) -> Iterator[Path]:
    for name in (PREFIXES, JUDGED):
        for cache in sorted((shelf.folder / "artifacts").glob(f"*/{name}")):
            yield from sorted(cache.iterdir())
