"""What stages keep beside their artifacts to save time, and which of it belongs to nothing any more.

A cache can be deleted at any time: what it held is computed again. `.prefixes` lies beside the originals and has a
folder per set of originals, first steered step, versions of the libraries and kind of device; `.judged` lies beside the
evaluations, a folder per set of images.
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
    """Return what a set of images with these hashes is called, in whatever order."""
    return make_key(sorted(hashes))


def prefix_folder(originals: Path, key: str, first_step: int, device: str) -> Path:
    """Return where all runs with these originals and this first steered step keep the steps before it.

    originals: the folder of the stage's artifacts; key: of the set. Other versions of the libraries and another kind of
    device come to other numbers, so that they have a folder of their own.
    """
    made_by = make_key([library_versions(), device.partition(":")[0]])[:8]
    return originals / PREFIXES / f"{key}-{first_step}-{made_by}"


def find_caches(shelf: Shelf) -> list[Waste]:
    """Return everything in caches."""
    return [Waste(path, "a cache") for path in _entries(shelf)]


def find_stale_caches(shelf: Shelf, hours: float, going: Iterable[Waste] = ()) -> list[Waste]:
    """Return what is kept for originals or images that no artifact holds but those that are going.

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
