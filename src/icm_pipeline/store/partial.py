"""The partial folder in which an artifact is built: begun, resumed after a kill, described, renamed into place.

A job may be killed between any two steps here: the next one resumes what is there, and nothing is left over.
"""

import contextlib
import json
import logging
import platform
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from icm_pipeline.machine.devices import device_name
from icm_pipeline.store.artifacts import SHARDS, STAMP, ArtifactError, open_artifact, verify
from icm_pipeline.store.files import hash_file, replace_folder, spread_mode, write_json
from icm_pipeline.store.manifest import FORMAT_VERSION, MANIFEST, FileEntry, Manifest, ShareEntry
from icm_pipeline.store.versions import code_version, library_versions

log = logging.getLogger(__name__)

PARTIAL, OLD = ".partial", ".old"
LAYOUT = 3  # of what a partial folder keeps for the next job


def partial_of(folder: Path) -> Path:
    """Return where the artifact of a folder is built."""
    return folder.with_name(folder.name + PARTIAL)


def artifact_folder(path: Path) -> Path:
    """Return where the artifact lies or will lie that a partial or replaced folder belongs to."""
    return path.with_name(path.name.removesuffix(OLD).removesuffix(PARTIAL))


def remove_if_empty(partial: Path) -> None:
    """Remove a partial folder in which nothing was done, so that a refused job leaves nothing behind."""
    if partial.exists() and not any(path.is_file() and path.name != STAMP for path in partial.rglob("*")):
        shutil.rmtree(partial)


def is_begun(partial: Path, key: str, force: bool = False) -> bool:
    """Return whether a job of this key and these versions began the folder; with force, whether a forced one did."""
    stamp = _stamp(partial)
    same = stamp.get("key") == key and stamp.get("versions") == _versions()
    return same and (not force or stamp.get("force") is True)


def _versions() -> dict[str, Any]:
    """Return what a partial folder must have been begun with to be resumed."""
    return {"format": FORMAT_VERSION, "layout": LAYOUT, **library_versions()}


def _stamp(partial: Path) -> dict[str, Any]:
    """Return a partial folder's stamp, empty if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        stamp = json.loads((partial / STAMP).read_text("utf-8"))
        return stamp if isinstance(stamp, dict) else {}
    return {}


def _other_versions(partial: Path, key: str) -> str:
    """Return how the versions that a folder of this key was begun with differ from those here; empty if they do not."""
    stamp = _stamp(partial)
    if stamp.get("key") != key:
        return ""
    there, here = stamp.get("versions") or {}, _versions()
    return ", ".join(
        f"{name} {there.get(name, 'unknown')} there and {here.get(name, 'unknown')} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    )


def check_versions(partial: Path, key: str) -> None:
    """Raise ArtifactError if a partial folder holds finished work that was made with other versions."""
    has_work = any((partial / SHARDS).glob("*.json")) and not (partial / MANIFEST).exists()
    if has_work and (differing := _other_versions(partial, key)):
        raise ArtifactError(
            f"{partial} holds finished work made with other versions: {differing}. All shares of an artifact need the "
            "same ones. Run this share with those; or begin again: remove that folder, or run with force=true and no "
            "shards."
        )


def prepare(partial: Path, manifest: Manifest, force: bool = False) -> None:
    """Resume a partial folder that `is_begun`, else begin again and log why; no other job may be in it."""
    if partial.exists() and not is_begun(partial, manifest.key, force):
        why = _other_versions(partial, manifest.key) or "not begun for this key, or not wholly"
        log.warning("beginning %s again: %s", partial.name, "forced" if force else why)
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    _remove_half_written(partial)
    seconds = _seconds_so_far(partial)
    (partial / MANIFEST).unlink(missing_ok=True)
    forced = force or is_begun(partial, manifest.key, force=True)
    stamp = {
        "key": manifest.key, "versions": _versions(), "force": forced, "parents": manifest.parents, "seconds": seconds,
    }  # fmt: skip
    write_json(partial / STAMP, stamp)
    (partial / SHARDS).mkdir(exist_ok=True)


def seconds_before(partial: Path) -> float:
    """Return the seconds that stopped jobs spent on what this one goes on with, 0.0 if it began."""
    seconds = _stamp(partial).get("seconds", 0.0)
    return seconds if isinstance(seconds, float) else 0.0


def _seconds_so_far(partial: Path) -> float:
    """Return the seconds spent by jobs before, the last one's from its stamp to the last whole file that it left.

    So a job that was killed tells as well as one that was stopped; what it lost is not counted. Shares tell their own.
    """
    stamp = partial / STAMP
    if not stamp.exists() or any((partial / SHARDS).glob("share-*.json")):
        return 0.0
    kept = [path.stat().st_mtime for path in partial.rglob("*") if path.is_file() and path != stamp]
    last = max(kept, default=0.0) - stamp.stat().st_mtime
    return round(seconds_before(partial) + max(0.0, last), 3)


def _remove_half_written(partial: Path) -> None:
    """Remove the files that a killed job was writing: ours end in .tmp, those of safetensors begin with it."""
    for leftover in (*partial.rglob("*.tmp"), *partial.rglob(".tmp*")):
        leftover.unlink(missing_ok=True)


def publish(partial: Path, folder: Path, manifest: Manifest, seconds: float) -> None:
    """Complete the manifest (where it was made, every file's size and hash) and rename the folder into place."""
    spread_mode(partial / STAMP)
    before = seconds_before(partial)
    paths = {path.relative_to(partial).as_posix(): path for path in partial.rglob("*") if path.is_file()}
    marks = sorted((partial / SHARDS).glob("share-*.json"))
    made = replace(
        manifest,
        device_name=device_name(manifest.device),
        shares=tuple(ShareEntry(**json.loads(mark.read_text("utf-8"))) for mark in marks),
        files={
            name: FileEntry(path.stat().st_size, hash_file(path))
            for name, path in sorted(paths.items())
            if name not in (MANIFEST, STAMP) and not name.startswith(f"{SHARDS}/")
        },
        code=code_version(),
        libraries=library_versions(),
        python=platform.python_version(),
        machine=platform.machine(),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=round(before + seconds, 3),
    )
    made.write(partial)
    move(partial, folder)


def is_complete(partial: Path, key: str) -> bool:
    """Return whether a job was killed between the manifest of this key and the rename: all files are there, hashed."""
    with contextlib.suppress(ArtifactError):
        artifact = open_artifact(partial) if (partial / MANIFEST).exists() else None
        if artifact is not None and artifact.key == key and artifact.manifest.format == FORMAT_VERSION:
            return verify(artifact) is artifact
    return False


def move(partial: Path, folder: Path) -> None:
    """Rename a complete partial folder into place; what only a resumed job needs goes first, so that none is left."""
    shutil.rmtree(partial / SHARDS, ignore_errors=True)
    _remove_half_written(partial)
    (partial / STAMP).unlink(missing_ok=True)
    replace_folder(partial, folder)
