"""Artifacts: folders of results on disk, complete or not there, each with a manifest. How one is made: building.py."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icm_pipeline.store.files import hash_file
from icm_pipeline.store.manifest import MANIFEST, UNREADABLE, Manifest, read_manifest

log = logging.getLogger(__name__)

STAMP = ".building.json"  # in a partial folder: the key and the versions it was begun with
SHARDS = "shards"  # in a partial folder: what the next job resumes from; no part of the artifact
LONG_TO_HASH = 2_000_000_000  # bytes; the log says that they are being hashed


class ArtifactError(RuntimeError):
    """An artifact that is missing, damaged, or cannot be written; the message says what to do."""


@dataclass(frozen=True)
class Artifact:
    """A complete artifact: where it lies and what its manifest says."""

    folder: Path
    manifest: Manifest = field(repr=False)

    @property
    def key(self) -> str:
        return self.manifest.key

    @property
    def stage(self) -> str:
        return self.manifest.stage

    def path(self, name: str) -> Path:
        """Return the path of a file the manifest lists."""
        if name not in self.manifest.files:
            raise ArtifactError(f"{self.folder} has no file {name!r}; it lists {sorted(self.manifest.files)[:8]}.")
        return self.folder / name

    def read_json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text("utf-8"))


def open_artifact(folder: Path) -> Artifact | None:
    """Return the artifact in a folder, None if there is none; raises ArtifactError if its manifest or sizes are off."""
    if not folder.exists():
        return None
    try:
        manifest = read_manifest(folder)
    except UNREADABLE as error:
        raise ArtifactError(_damaged(folder, f"its {MANIFEST} cannot be read ({error!r})")) from error
    if not (manifest.files and manifest.key and manifest.stage):
        raise ArtifactError(_damaged(folder, f"its {MANIFEST} names no files, no key or no stage"))
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_relative_to(folder) or ".." in path.parts[len(folder.parts) :]:
            raise ArtifactError(_damaged(folder, f"its {MANIFEST} lists {name}, which lies outside the folder"))
        if not path.is_file():
            raise ArtifactError(_damaged(folder, f"{name} is missing"))
        if path.stat().st_size != entry.size:
            raise ArtifactError(_damaged(folder, f"{name} has {path.stat().st_size} bytes instead of {entry.size}"))
    return Artifact(folder, manifest)


def verify(artifact: Artifact) -> Artifact:
    """Re-hash every file and return the artifact; raises ArtifactError naming the first file that differs."""
    tell_if_long(artifact.folder, artifact.manifest.size)
    for name, entry in artifact.manifest.files.items():
        if hash_file(artifact.folder / name) != entry.sha256:
            raise ArtifactError(_damaged(artifact.folder, f"{name} was changed after it was written"))
    return artifact


def tell_if_long(path: Path, size: int) -> None:
    if size >= LONG_TO_HASH:
        log.info("hashing %.1f GB of %s", size / 1e9, path)


def _damaged(folder: Path, what: str) -> str:
    return f"The artifact {folder} is damaged: {what}. Delete that folder and run again to rebuild it."
