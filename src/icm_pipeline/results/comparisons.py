"""Which evaluations are comparable (same originals and judges), and in which settings they differ."""

import contextlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from icm_pipeline.config.choices import TOLD_BY_STEERING
from icm_pipeline.results.evaluation import Evaluation, Interval
from icm_pipeline.results.steering import Steering
from icm_pipeline.store.artifacts import Artifact, ArtifactError, open_artifact
from icm_pipeline.store.fingerprints import make_key
from icm_pipeline.store.manifest import UNREADABLE, manifests_in, read_manifest
from icm_pipeline.store.partial import OLD, PARTIAL

log = logging.getLogger(__name__)

LONGEST_VALUE = 40  # characters
OF_METHOD = r"method\.(params|strength)"  # settings that tell runs of one method apart, and no method from another


@dataclass(frozen=True)
class Differences:
    """The settings in which evaluations differ beside their steering, as on the command line (`probe.C=1`)."""

    told: tuple[tuple[str, ...], ...]
    """For each evaluation, its settings that most others do not share."""
    usual: tuple[str, ...]
    """What most of them have instead."""


@dataclass(frozen=True)
class Compared:
    """One of several comparable evaluations of steered images."""

    key: str
    evaluation: Evaluation
    steering: Steering
    told: tuple[str, ...] = ()
    """Its settings that most others do not share, see `Differences`."""
    fd_less_this: Interval | None = None
    """95 % interval of its FD less that of the run reported on; None where they cannot be compared."""

    @property
    def place(self) -> tuple[float, float]:
        """FD and CLIP-I."""
        assert self.evaluation.clip_i is not None
        return self.evaluation.after.mean, self.evaluation.clip_i


def read_compared(artifact: Artifact, told: tuple[str, ...] = ()) -> Compared:
    """Return an evaluation of images that the pipeline steered."""
    evaluation = Evaluation.read(artifact)
    assert evaluation.steering is not None
    return Compared(artifact.key, evaluation, evaluation.steering, told)


def comparable_evaluations(folder: Path, settings: dict[str, Any], originals_key: str) -> tuple[Artifact, ...]:
    """Return the evaluations in a folder of artifacts that share originals and judges, by key.

    settings: those that an evaluation's key stands for. A damaged artifact is left out, with a warning.
    """
    found = []
    for path in manifests_in(folder):
        try:
            artifact = None if path.name.endswith((PARTIAL, OLD)) else open_artifact(path)
        except ArtifactError as error:
            log.warning("left out of the comparison: %s", error)
            continue
        if artifact is not None and artifact.manifest.parents.get("originals") == originals_key:
            found += [artifact] if make_key(artifact.manifest.settings) == make_key(settings) else []
    return tuple(sorted(found, key=lambda artifact: artifact.key))


def differences(evaluations: Sequence[Artifact]) -> Differences:
    """Return the settings in which evaluations, or the artifacts they were made from, differ.

    Ancestors that have been removed are left out.
    """
    read = cache(_read_ancestor)
    settings = [_settings_behind(evaluation, read) for evaluation in evaluations]
    told: list[list[str]] = [[] for _ in evaluations]
    usual = []
    for name in sorted({name for one in settings for name in one if not re.fullmatch(TOLD_BY_STEERING, name)}):
        words = [f"{name}={_text(one[name])}" if name in one else None for one in settings]
        methods = [one.get("method.name") if re.match(OF_METHOD, name) else None for one in settings]
        for method in dict.fromkeys(methods):
            counts = Counter(word for word, of in zip(words, methods, strict=True) if word and of == method)
            if len(counts) < 2:
                continue
            usual.append(min(counts, key=lambda word: (-counts[word], word)))
            for own, word, of in zip(told, words, methods, strict=True):
                own += [word] if word and of == method and word != usual[-1] else []
    return Differences(tuple(map(tuple, told)), tuple(usual))


def _settings_behind(artifact: Artifact, read: Callable[[Path, str], Artifact | None]) -> dict[str, Any]:
    """Return the settings of an artifact and its ancestors, by dotted name; read: finds an ancestor."""
    found = _flat(artifact.manifest.config)
    for stage, key in artifact.manifest.parents.items():
        parent = read(artifact.folder.parent.parent / stage, key)
        found |= {} if parent is None else _settings_behind(parent, read)
    return found


def _read_ancestor(folder: Path, key: str) -> Artifact | None:
    """Return the artifact of a key without checking its files; None if it is missing or unreadable."""
    for path in manifests_in(folder, f"*-{key}"):
        with contextlib.suppress(*UNREADABLE):
            return Artifact(path, read_manifest(path))
    return None


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with groups (`layers`, `method`) split up, without those that were irrelevant (None) in them."""
    groups = {name: value for name, value in settings.items() if "." not in name and isinstance(value, dict)}
    inner = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
    single = {name: value for name, value in settings.items() if name not in groups}
    return single | {name: value for name, value in inner.items() if value is not None}


def _text(value: Any) -> str:
    """Return a value as on the command line; a long one is cut and ends in the start of its hash."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if isinstance(value, list | dict):
        text = text.replace('"', "")
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 8]}... {make_key(value)[:4]}"
