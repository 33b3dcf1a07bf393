"""What `icm gc` removes: what killed jobs left half-made, artifacts from which no result was made, stale caches."""

import contextlib
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from icm_pipeline.store.artifacts import STAMP
from icm_pipeline.store.building import is_being_built
from icm_pipeline.store.caches import JUDGED, PICTURES, PREFIXES, images_key
from icm_pipeline.store.partial import OLD, PARTIAL, artifact_folder
from icm_pipeline.store.shelf import Shelf, artifact_folders, parents_in


@dataclass(frozen=True)
class Waste:
    """Something that can go, and why nothing needs it."""

    path: Path
    reason: str
    changed: float | None = None
    """Its `last_change` when it was found; None for a cache, which can go at any time."""


def find_waste(shelf: Shelf, hours: float) -> list[Waste]:
    """Return what can be removed: no whole artifact while some are `untraceable`.

    Artifacts made within the last so many hours stay, as a job may be about to use them, and so does half-made work
    changed within them, which a job may be about to resume. What both were made from stays too.
    """
    youngest = time.time() - 3600 * hours
    left_over, needed = [], set(shelf.needed)
    for path in artifact_folders(shelf.folder / "artifacts"):
        if path.name.endswith((PARTIAL, OLD)):
            changed = last_change(path)  # before the locks are looked at: a job that comes later changes it
            young = path.name.endswith(PARTIAL) and changed > youngest
            if young or is_being_built(artifact_folder(path)):
                needed |= shelf.ancestors(parents_in(path / STAMP) or ())
            else:
                left_over.append(Waste(path, "left half-made by a job that is gone", changed))
    if shelf.untraceable:
        return left_over
    young_keys = [key for key, one in shelf.artifacts.items() if (one.manifest.made_at or math.inf) > youngest]
    needed |= shelf.ancestors(young_keys)
    newer, unused = "a newer report of the same evaluation is there", "no result was made from it"
    unneeded = [
        Waste(artifact.folder, newer if key in shelf.outdated else unused, last_change(artifact.folder))
        for key, artifact in shelf.artifacts.items()
        if key not in needed
    ]
    return left_over + sorted(unneeded, key=lambda waste: waste.path)


def find_caches(shelf: Shelf) -> list[Waste]:
    """Return every entry of the caches."""
    caches = [cache for name in (PREFIXES, JUDGED) for cache in sorted((shelf.folder / "artifacts").glob(f"*/{name}"))]
    return [Waste(path, "a cache") for cache in caches for path in sorted(cache.iterdir())]


def find_stale_caches(shelf: Shelf, hours: float, going: Iterable[Waste] = ()) -> list[Waste]:
    """Return the entries for originals or images that no artifact holds, apart from those that are going.

    What was changed within the last so many hours stays, and what belongs to half-made originals that stay.
    """
    gone = {item.path for item in going}
    staying = {key: artifact.manifest.files for key, artifact in shelf.artifacts.items() if artifact.folder not in gone}
    held = {
        images_key(entry.sha256 for name, entry in files.items() if name.startswith(PICTURES))
        for files in staying.values()
    }
    youngest, stale = time.time() - 3600 * hours, []
    for path in (cache.path for cache in find_caches(shelf)):
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


def last_change(path: Path) -> float:
    """Return when the newest file below a path was changed, in seconds since 1970; infinity if the path is gone."""
    newest = -math.inf
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a job that is at work removes its temporary files
                newest = max(newest, (Path(folder) / name).stat().st_mtime)
    try:
        return path.stat().st_mtime if newest == -math.inf else newest
    except FileNotFoundError:
        return math.inf
