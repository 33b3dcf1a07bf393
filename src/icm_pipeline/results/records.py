"""Typed results as the JSON files of an artifact: what a stage writes is read back as the same dataclass."""

from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, get_args, get_origin

from icm_pipeline.store.artifacts import Artifact, ArtifactError
from icm_pipeline.store.files import write_json

INLINE = {"inline": True}  # metadata of a field that is a dataclass whose fields stand among the record's own in JSON


class Record:
    """A frozen dataclass that is one JSON file of an artifact."""

    FILE: ClassVar[str]

    @classmethod
    def read(cls, artifact: Artifact) -> Self:
        """Raises ArtifactError if the file is not as this class writes it."""
        try:
            record: Self = from_json(cls, artifact.read_json(cls.FILE))
        except (ValueError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{artifact.path(cls.FILE)} cannot be read as {cls.__name__}: {error}") from error
        return record

    def write(self, folder: Path) -> None:
        write_json(folder / self.FILE, to_json(self))


def to_json(value: Any) -> Any:
    """Return dataclasses as JSON objects, in the order of their fields; an optional field that is None is left out."""
    if is_dataclass(value):
        content: dict[str, Any] = {}
        for item in fields(value):
            inner = getattr(value, item.name)
            if item.metadata:
                content |= to_json(inner)
            elif inner is not None or item.default is MISSING:
                content[item.name] = to_json(inner)
        return content
    if isinstance(value, dict):
        return {key: to_json(inner) for key, inner in value.items()}
    return [to_json(inner) for inner in value] if isinstance(value, list | tuple) else value


def from_json(kind: Any, content: Any) -> Any:
    """Return what `to_json` made of a value of this type; fields that the type does not know are ignored."""
    if get_origin(kind) is UnionType:
        if content is None:
            return None
        kind = next(option for option in get_args(kind) if option is not NoneType)
    if isinstance(kind, type) and is_dataclass(kind):
        found = {item: content if item.metadata else content.get(item.name, MISSING) for item in fields(kind)}
        return kind(**{item.name: from_json(item.type, own) for item, own in found.items() if own is not MISSING})
    if get_origin(kind) is dict:
        return {key: from_json(get_args(kind)[1], own) for key, own in content.items()}
    if get_origin(kind) in (list, tuple):
        return get_origin(kind)(from_json(get_args(kind)[0], own) for own in content)
    return content
