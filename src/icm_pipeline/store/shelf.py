"""All artifacts of an outputs folder: what made each, what needs it, and what nothing needs any more."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from icm_pipeline.store.artifacts import Artifact, ArtifactError, open_artifact, verify
from icm_pipeline.store.manifest import MANIFEST
from icm_pipeline.store.partial import OLD, PARTIAL


@dataclass(frozen=True)
class Damaged:
    """A folder whose artifact cannot be read."""

    folder: Path
    stage: str
    key: str
    problem: str
    parents: tuple[str, ...] | None
    """The keys of what it was made from; None if that is not known."""


@dataclass(frozen=True)
class Shelf:
    """The artifacts below an outputs folder, by key, and the folders of those that cannot be read."""

    folder: Path
    artifacts: dict[str, Artifact]
    damaged: tuple[Damaged, ...]
    kinds: Mapping[str, str]
    """By stage, see `icm_pipeline.pipeline.stage.Stage.kind`."""

    @property
    def half_made(self) -> list[Path]:
        """The folders of artifacts that a job makes, or has left."""
        return [path for path in artifact_folders(self.folder / "artifacts") if path.name.endswith(PARTIAL)]

    @cached_property
    def results(self) -> set[str]:
        """The keys of evaluations, newest reports, labels of folders, unused probes and selections."""
        used = {parent for artifact in self.artifacts.values() for parent in artifact.manifest.parents.values()}
        kinds = {key: self.kinds.get(artifact.stage) for key, artifact in self.artifacts.items()}
        found = {key for key, kind in kinds.items() if kind == "result" or (kind == "end" and key not in used)}
        of_folders = {key for key, artifact in self.artifacts.items() if artifact.manifest.folders}
        return (found - self.outdated) | of_folders

    @cached_property
    def outdated(self) -> frozenset[str]:
        """The keys of reports beside which there is a newer one of the same evaluation, compared with others."""
        reports = [artifact for artifact in self.artifacts.values() if "compared" in artifact.manifest.settings]
        reports = sorted(reports, key=lambda report: (report.manifest.made_at or 0, report.key))
        newest = {(report.stage, *report.manifest.parents.values()): report.key for report in reports}
        return frozenset(report.key for report in reports) - frozenset(newest.values())

    @cached_property
    def needed(self) -> frozenset[str]:
        """The keys of results, and of what they or a damaged artifact were made from."""
        behind_damaged = [parent for damaged in self.damaged for parent in damaged.parents or ()]
        return self.ancestors([*self.results, *behind_damaged])

    @property
    def untraceable(self) -> list[Damaged]:
        """The damaged artifacts that are results, or that results were made from, and that do not say from what."""
        unknown = {one: self.kinds.get(one.stage) for one in self.damaged if one.parents is None}
        results = [one for one, kind in unknown.items() if kind in ("end", "result")]
        return results + [one for one, kind in unknown.items() if kind == "step" and one.key in self.needed]

    def ancestors(self, keys: Iterable[str]) -> frozenset[str]:
        """Return these keys and those of everything they were made from, as far as it is there."""
        found: set[str] = set()
        new = self._parents.keys() & keys
        while new:
            found |= new
            new = self._parents.keys() & {parent for key in new for parent in self._parents[key]} - found
        return frozenset(found)

    @cached_property
    def _parents(self) -> dict[str, Sequence[str]]:
        """What every artifact was made from, by key; a damaged one counts if its parents can be read."""
        damaged = {one.key: one.parents or () for one in self.damaged}
        return damaged | {key: [*artifact.manifest.parents.values()] for key, artifact in self.artifacts.items()}

    def find(self, word: str) -> Artifact:
        """Return the artifact of a folder, a folder's name, a key or the beginning of one; raises ArtifactError."""
        path = Path(word).expanduser()
        if (path / MANIFEST).exists() and (artifact := open_artifact(path)) is not None:
            return artifact
        every = self.artifacts.items()
        if len(path.parts) > 1:  # a place, where a mere name could be that of an artifact elsewhere
            found = [artifact for _, artifact in every if self._begins(artifact, path)]
        else:
            found = [a for key, a in every if key.startswith(word) or a.folder.name.startswith(path.name)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(sorted(f"{artifact.stage} {artifact.key}" for artifact in found))
            raise ArtifactError(f"{word!r} is the beginning of several artifacts' keys: {names}. Give more of the key.")
        raise ArtifactError(
            f"No artifact in {self.folder} has the key or folder {word!r}. `icm ls` lists what there is. To look "
            "elsewhere add --outputs FOLDER, or, to `icm explore`, paths.outputs=FOLDER."
        )

    def _begins(self, artifact: Artifact, path: Path) -> bool:
        """Say whether a path, from here or from the outputs folder, is an artifact's or the beginning of it."""
        places = [base / path for base in (Path(), self.folder, self.folder / "artifacts")]
        folder = artifact.folder.resolve()
        return any(folder.parent == p.resolve().parent and folder.name.startswith(p.name) for p in places)


def check_there(place: str) -> None:
    """Refuse a path that is not there; a word alone may be the key of an artifact. Raises ArtifactError."""
    path = Path(place).expanduser()
    if len(path.parts) > 1 and not path.exists():
        raise ArtifactError(f"There is no {place}. Give a folder that is there, or the key of an artifact (`icm ls`).")


def read_shelf(outputs: Path, kinds: Mapping[str, str]) -> Shelf:
    """Read every manifest below an outputs folder; raises ArtifactError if there is no such folder."""
    root = outputs / "artifacts"
    if not root.is_dir():
        raise ArtifactError(
            f"{outputs} holds no artifacts. Give the outputs folder of a run: --outputs FOLDER, or, to `icm explore`, "
            "paths.outputs=FOLDER."
        )
    artifacts: dict[str, Artifact] = {}
    damaged: list[Damaged] = []
    for folder in artifact_folders(root):
        if folder.name.endswith((PARTIAL, OLD)):
            continue
        try:
            if (artifact := open_artifact(folder)) is not None:
                artifacts[artifact.key] = artifact
        except ArtifactError as error:
            key, parents = folder.name.rpartition("-")[2], parents_in(folder / MANIFEST)
            damaged.append(Damaged(folder, folder.parent.name, key, str(error), parents))
    return Shelf(outputs, artifacts, tuple(damaged), kinds)


def changed_files(artifact: Artifact) -> str | None:
    """Return what differs from the manifest after hashing every file again, None if nothing does."""
    try:
        verify(artifact)
    except (ArtifactError, OSError) as error:
        return str(error)
    return None


def artifact_folders(root: Path) -> Iterator[Path]:
    """Return the folders of artifacts, complete and partial; caches and files beside them are ignored."""
    return (path for path in sorted(root.glob("*/*")) if path.is_dir() and not path.name.startswith("."))


def parents_in(file: Path) -> tuple[str, ...] | None:
    """Return the parents' keys in a manifest or a stamp, None if it cannot be read."""
    try:
        return tuple(json.loads(file.read_text("utf-8"))["parents"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
