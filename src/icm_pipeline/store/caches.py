"""Caches that stages keep beside their artifacts.

A cache can be deleted at any time: what it held is computed again. `.prefixes`, beside the originals, has a folder per
set of originals, first steered step, versions of the libraries and kind of device; `.judged`, beside the evaluations, a
folder per set of images.
"""

from collections.abc import Iterable
from pathlib import Path

from icm_pipeline.store.fingerprints import make_key
from icm_pipeline.store.versions import library_versions

PREFIXES = ".prefixes"
JUDGED = ".judged"
PICTURES = "images/"  # how the names of an artifact's pictures begin


def images_key(hashes: Iterable[str]) -> str:
    """Return the key of a set of images, from the hashes of its files in any order."""
    return make_key(sorted(hashes))


def prefix_folder(originals: Path, key: str, first_step: int, device: str) -> Path:
    """Return the cache of the steps before the first steered one, for all runs with the originals of this key.

    originals: the folder of the stage's artifacts. Other libraries and kinds of device round otherwise: not shared.
    """
    made_by = make_key([library_versions(), device.partition(":")[0]])[:8]
    return originals / PREFIXES / f"{key}-{first_step}-{made_by}"


def judged_folder(artifact: Path) -> Path:
    """Return the cache of judges' answers, for every stage that asks them; artifact: the folder of any stage's."""
    return artifact.parent.parent / "evaluate" / JUDGED
