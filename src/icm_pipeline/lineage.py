"""All artifacts of an outputs folder: what made each, what needs it, and what nothing needs any more."""

import contextlib
import json
import math
import os
import time
from calendar import timegm
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from icm_pipeline.artifacts import MANIFEST, STAMP, Artifact, ArtifactError, open_artifact, verify
from icm_pipeline.building import is_being_built
from icm_pipeline.partials import OLD, PARTIAL, artifact_folder

RESULTS = ("evaluate", "report")  # what an outputs folder is kept for


@dataclass(frozen=True)
class Shelf:
    """The artifacts below an outputs folder, by key; `damaged`: what is wrong with those that cannot be read."""

    folder: Path
    artifacts: dict[str, Artifact]
    damaged: dict[Path, str]

    @cached_property
    def needed(self) -> frozenset[str]:
        """The keys from which a result was made, and the results themselves."""
        return self.ancestors(key for key, artifact in self.artifacts.items() if _is_result(artifact))

    def ancestors(self, keys: Iterable[str]) -> frozenset[str]:
        """Return these keys and those of everything they were made from, as far as it is there."""
        found: set[str] = set()
        waiting = [key for key in keys if key in self.artifacts]
        while waiting:
            key = waiting.pop()
            if key not in found:
                found.add(key)
                waiting += [parent for parent in parents_of(self.artifacts[key]) if parent in self.artifacts]
        return frozenset(found)

    def find(self, word: str) -> Artifact:
        """Return the artifact of a folder, a folder's name, a key or the beginning of one; raises ArtifactError."""
        path = Path(word)
        if (path / MANIFEST).exists():
            artifact = open_artifact(path)
            assert artifact is not None
            return artifact
        found = [a for key, a in self.artifacts.items() if key.startswith(word) or a.folder.name == path.name]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(sorted(f"{stage_of(artifact)} {artifact.key}" for artifact in found))
            raise ArtifactError(f"{word!r} is the beginning of several artifacts' keys: {names}. Give more of the key.")
        raise ArtifactError(
            f"No artifact in {self.folder} has the key or folder {word!r}. `icm ls` lists what there is; "
            "--outputs says where to look."
        )


@dataclass(frozen=True)
class Waste:
    """Something that can go: what it is, and why nothing needs it.

    changed: its `last_change` when it was found; None for a cache, which can go at any time.
    """

    path: Path
    reason: str
    changed: float | None = None


def read_shelf(outputs: Path) -> Shelf:
    """Read every manifest below an outputs folder; raises ArtifactError if there is no such folder."""
    root = outputs / "artifacts"
    if not root.is_dir():
        raise ArtifactError(f"{outputs} holds no artifacts. Give the outputs folder of a run: --outputs FOLDER.")
    artifacts: dict[str, Artifact] = {}
    damaged: dict[Path, str] = {}
    for folder in _folders(root):
        if folder.name.startswith(".") or folder.name.endswith((PARTIAL, OLD)):
            continue
        try:
            artifact = open_artifact(folder)
        except ArtifactError as error:
            damaged[folder] = str(error)
        else:
            assert artifact is not None
            artifacts[artifact.key] = artifact
    return Shelf(outputs, artifacts, damaged)


def find_waste(shelf: Shelf, hours: float) -> list[Waste]:
    """Return what can be removed: what dead jobs left half-made, and artifacts from which no result was made.

    Artifacts made within the last so many hours stay, as a job may be about to use them, and so does half-made work
    that was changed within them, as the next share or the job's next start may be about to go on with it. What is
    needed to make the rest of it stays too.
    """
    youngest = time.time() - 3600 * hours
    left_over, needed = [], set(shelf.needed)
    for path in _folders(shelf.folder / "artifacts"):
        if path.name.endswith((PARTIAL, OLD)):
            changed = last_change(path)  # before the locks are looked at: a job that comes later changes it
            young = path.name.endswith(PARTIAL) and changed > youngest
            if young or is_being_built(artifact_folder(path)):
                needed |= shelf.ancestors(_parents_in_stamp(path / STAMP))
            else:
                left_over.append(Waste(path, "left half-made by a job that is gone", changed))
    unneeded = [
        Waste(artifact.folder, "no evaluation or report was made from it", last_change(artifact.folder))
        for key, artifact in shelf.artifacts.items()
        if key not in needed and (made := _seconds(artifact)) is not None and made <= youngest
    ]
    return left_over + sorted(unneeded, key=lambda waste: waste.path)


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


def changed_files(artifact: Artifact) -> str | None:
    """Return what differs from the manifest after hashing every file again, None if nothing does."""
    try:
        verify(artifact)
    except (ArtifactError, OSError) as error:
        return str(error)
    return None


def stage_of(artifact: Artifact) -> str:
    """Return the name of the stage that made an artifact."""
    return str(artifact.manifest["stage"])


def _is_result(artifact: Artifact) -> bool:
    """Say whether an artifact is an end in itself: an evaluation, a report, or the labels of a folder of images."""
    return stage_of(artifact) in RESULTS or "folders" in artifact.manifest


def parents_of(artifact: Artifact) -> list[str]:
    """Return the keys of the artifacts that an artifact was made from."""
    return list(artifact.manifest.get("parents", {}).values())


def subject_of(artifact: Artifact) -> tuple[str, str]:
    """Return the names of the model and the attribute an artifact was first made for."""
    manifest, name = artifact.manifest, artifact.folder.name.removesuffix(f"-{artifact.key}")
    model, _, attribute = name.rpartition("-")
    return str(manifest.get("model", model)), str(manifest.get("attribute", attribute))


def size_of(artifact: Artifact) -> int:
    """Return the bytes of all files that the manifest lists."""
    return sum(entry["size"] for entry in artifact.manifest["files"].values())


def settings_of(artifact: Artifact) -> dict[str, Any]:
    """Return the settings that the artifact's key stands for, by their dotted names."""
    return {name: _as_mapping(value) for name, value in artifact.manifest["settings"].get("config", {}).items()}


def _as_mapping(value: Any) -> Any:
    """Return a list of pairs, as which a manifest keeps a mapping to hold its order, as a mapping again."""
    if isinstance(value, list) and value and all(_is_pair(item) for item in value):
        return {key: _as_mapping(inner) for key, inner in value}
    return value


def _is_pair(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)


def _folders(root: Path) -> Iterator[Path]:
    """Return the folders of artifacts, whole and half-made; what else lies beside them is ignored."""
    for stage in sorted(path for path in root.iterdir() if path.is_dir()):
        yield from sorted(path for path in stage.iterdir() if path.is_dir())


def _parents_in_stamp(stamp: Path) -> list[str]:
    try:
        return list(json.loads(stamp.read_text("utf-8"))["parents"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return []


def _seconds(artifact: Artifact) -> float | None:
    """Return when an artifact was made, in seconds since 1970; None if its manifest does not say."""
    try:
        return timegm(time.strptime(artifact.manifest["created"], "%Y-%m-%dT%H:%M:%SZ"))
    except (KeyError, ValueError, TypeError):
        return None
