"""The manifest of an artifact: what it is, what made it, its files. Earlier formats are read too.

Up to format 5 the mappings among the settings were lists of pairs. The format is part of every key.
"""

import contextlib
import json
import time
from calendar import timegm
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from icm_pipeline.store.files import write_json

FORMAT_VERSION = 6
MANIFEST = "manifest.json"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a manifest raises that is damaged or not there."""


@dataclass(frozen=True)
class FileEntry:
    """A file as it was when the artifact was published."""

    size: int
    """In bytes."""
    sha256: str


@dataclass(frozen=True)
class ShareEntry:
    """One job's part of work that several jobs shared."""

    share: str
    """Its number of how many, `0-of-4`."""
    seconds: float
    device: str = ""
    device_name: str = ""


@dataclass(frozen=True)
class Manifest:
    """What an artifact is and what made it; one that is still to be made has no files and no versions yet."""

    stage: str
    key: str
    parents: dict[str, str] = field(default_factory=dict)
    """The keys of what it was made from, by stage."""
    model: str = ""
    attribute: str = ""
    """Of the first run that asked for it; attributes with the same prompts share their images."""
    device: str = "cpu"
    settings: dict[str, Any] = field(default_factory=dict)
    """What the key stands for beside the parents: `config`, hashes of weights and folders, the stage's version."""
    folders: dict[str, str] = field(default_factory=dict)
    """The folders of images that were given, by setting."""
    rounding: dict[str, Any] = field(default_factory=dict)
    """Settings that change images by rounding at most, and no key."""
    device_name: str = ""
    shares: tuple[ShareEntry, ...] = ()
    format: int = FORMAT_VERSION
    files: dict[str, FileEntry] = field(default_factory=dict)
    """By their paths below the folder."""
    code: dict[str, Any] = field(default_factory=dict)
    """This package's version and, in a git checkout, `commit` and `modified`."""
    libraries: dict[str, str] = field(default_factory=dict)
    python: str = "unknown"
    machine: str = "unknown"
    created: str = ""
    """In UTC, `2026-01-31T12:00:00Z`."""
    seconds: float = 0.0
    """The time of the job that published it and of stopped ones that it went on from; shares have their own."""

    @property
    def config(self) -> dict[str, Any]:
        """The settings that the key stands for, by dotted name."""
        return dict(self.settings.get("config", {}))

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    @property
    def made_at(self) -> float | None:
        """When it was made, in seconds since 1970; None if that cannot be read."""
        try:
            return timegm(time.strptime(self.created, "%Y-%m-%dT%H:%M:%SZ"))
        except ValueError:
            return None

    @property
    def code_text(self) -> str:
        """The version and commit of what made it; one from before the code was noted has the version as a library."""
        if not self.code:
            return f"icm_pipeline {self.libraries.get('icm_pipeline', 'of an unknown version')}"
        changed = ", with files changed since" if self.code.get("modified") else ""
        commit = f", commit {self.code['commit']}{changed}" if "commit" in self.code else ""
        return f"icm_pipeline {self.code['version']}{commit}"

    def write(self, folder: Path) -> None:
        optional = ("folders", "rounding", "shares")
        write_json(folder / MANIFEST, {k: v for k, v in asdict(self).items() if v or k not in optional})


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest in a folder; raises one of the UNREADABLE errors if it cannot be read."""
    content = json.loads((folder / MANIFEST).read_text("utf-8"))
    known = {name: content[name] for name in Manifest.__dataclass_fields__.keys() & content.keys()}
    made_by, settings = content.get("format", 0), content.get("settings", {})
    if made_by < FORMAT_VERSION:
        mappings = {name: _as_mapping(value) for name, value in settings.get("config", {}).items()}
        known["settings"] = {**settings, "config": mappings}
    files = {name: FileEntry(entry["size"], entry["sha256"]) for name, entry in content["files"].items()}
    shares = tuple(ShareEntry(**share) for share in content.get("shares", ()))
    return Manifest(**known | {"format": made_by, "files": files, "shares": shares})


def manifests_in(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """Return the folders below one, by a pattern of their names, that hold a manifest."""
    return (path.parent for path in sorted(folder.glob(f"{pattern}/{MANIFEST}")))


def earlier_formats(folder: Path) -> list[int]:
    """Return the formats of the artifacts whose folder's name differs in the key; none if one is of today's format."""
    formats = set()
    for path in manifests_in(folder.parent, f"{folder.name.rpartition('-')[0]}-*"):
        with contextlib.suppress(*UNREADABLE):
            formats.add(read_manifest(path).format)
    return [] if FORMAT_VERSION in formats else sorted(formats)


def _as_mapping(value: Any) -> Any:
    """Return a list of pairs, as which formats up to 5 kept a mapping, as the mapping."""
    pairs = value if isinstance(value, list) else []
    if pairs and all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        return {key: _as_mapping(inner) for key, inner in pairs}
    return value
