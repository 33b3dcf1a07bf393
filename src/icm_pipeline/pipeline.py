"""The stages: what each needs, which part of the configuration changes its result, and running what is missing.

A stage's key is a hash of that part of the configuration and of the keys of what it needs. So alpha enters only at
`steer` and k only at `select`: a sweep over both shares images, activations and probes.
"""

import logging
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from icm_pipeline.artifacts import (
    FORMAT_VERSION,
    Artifact,
    ArtifactError,
    building,
    fingerprint,
    make_key,
    open_artifact,
    verify,
)
from icm_pipeline.backbones.paths import local_folder
from icm_pipeline.config import Settings, value_at
from icm_pipeline.tracking import Tracker
from icm_pipeline.validation import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageContext:
    """What a stage's function gets: the settings, its whole parents by stage name, and the folder to fill."""

    settings: Settings
    parents: dict[str, Artifact]
    folder: Path
    tracker: Tracker


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline. `reads` are dotted names; `weights` those among them that point to weights on disk."""

    name: str
    summary: str
    needs: Callable[[Settings], tuple[str, ...]]
    reads: tuple[str, ...]
    weights: tuple[str, ...] = ()
    reads_to_record: tuple[str, ...] = ()  # read besides, if the stage records activations

    @property
    def run(self) -> Callable[[StageContext], None]:
        function: Callable[[StageContext], None] = import_module(f"icm_pipeline.stages.{self.name}").run
        return function


MODEL = ("model.family", "model.path", "model.dtype", "model.num_steps", "model.guidance_scale")
PROBE_DATASET = (
    *MODEL, "attribute.probe_templates", "attribute.probe_subjects", "generate.images_per_prompt", "seed",
)  # fmt: skip
EVALUATION_SET = (*MODEL, "attribute.evaluation_prompts", "evaluate.images_per_prompt", "seed")
RECORDING = ("model.sites", "timesteps.first", "timesteps.stride")


def _activations(settings: Settings) -> str:
    return "generate" if settings.generate.record else "extract"


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "generate", "make the probe dataset, and record pooled activations in the same pass",
            lambda s: (), (*PROBE_DATASET, "generate.record"), ("model.path",), RECORDING,
        ),
        Stage("extract", "record pooled activations of the probe dataset on its own",
              lambda s: (), (*PROBE_DATASET, *RECORDING), ("model.path",)),
        Stage("label", "say what every probe image shows",
              lambda s: ("generate",), ("labeler.kind", "labeler.model", "labeler.path", "attribute.name",
              "attribute.options"), ("labeler.path",)),
        Stage("probe", "fit a linear probe per layer and timestep, and its steering vectors",
              lambda s: ("generate", "label") if s.generate.record else ("extract", "generate", "label"),
              ("probe", "attribute.name", "seed")),
        Stage("select", "rank the layers and choose those to steer", lambda s: ("probe",), ("layers",)),
        Stage("originals", "make the unsteered evaluation images", lambda s: (), EVALUATION_SET, ("model.path",)),
        Stage("steer", "make the evaluation images again, steered",
              lambda s: ("probe", "select"),
              (*EVALUATION_SET, "alpha", "method", "model.batch_size", "attribute.name"), ("model.path",)),
        Stage("evaluate", "judge both sets: FD, CLIP-I, obedience, drift",
              lambda s: ("originals", "steer"),
              ("judge.kind", "judge.model", "judge.path", "evaluate.clip.kind", "evaluate.clip.model",
              "evaluate.clip.path", "evaluate.drift", "evaluate.bootstrap", "evaluate.images_per_prompt",
              "attribute.name", "attribute.options"),
              ("judge.path", "evaluate.clip.path")),
        Stage("report", "draw the figures and write the page",
              lambda s: (_activations(s), "label", "probe", "select", "originals", "steer", "evaluate"), ()),
    )
}  # fmt: skip


def stages_of(settings: Settings) -> tuple[str, ...]:
    """Return the stages that `stage=all` runs, in order."""
    return tuple(name for name in STAGES if name != "extract" or not settings.generate.record)


def _ordered(value: Any) -> Any:
    """Return plain data with every mapping as a list of pairs: the options' order is part of what a key stands for."""
    return [[key, _ordered(inner)] for key, inner in value.items()] if isinstance(value, dict) else value


class Pipeline:
    """The stages under one configuration, with their keys and folders.

    overrides: the command-line words that made the configuration, so that messages can name the command to run.
    """

    def __init__(self, settings: Settings, overrides: list[str], tracker: Tracker) -> None:
        self.settings = settings
        self._overrides = overrides
        self._tracker = tracker
        self._keys: dict[str, str] = {}
        self._verified: set[str] = set()

    def key(self, name: str) -> str:
        """Return a stage's key under this configuration."""
        if name not in self._keys:
            self._keys[name] = make_key({**self._slice(name), "parents": self._parent_keys(name)})
        return self._keys[name]

    def folder(self, name: str) -> Path:
        label = f"{self.settings.model.name}-{self.settings.attribute.name}-{self.key(name)}"
        return Path(self.settings.paths.outputs) / "artifacts" / name / label

    def find(self, name: str) -> Artifact | None:
        """Return a stage's artifact if it is done; raises ArtifactError if it is damaged or was edited."""
        artifact = open_artifact(self.folder(name))
        if artifact is None or artifact.key in self._verified:
            return artifact
        if artifact.key != self.key(name):
            raise ArtifactError(
                f"{artifact.folder} holds the artifact of another key, {artifact.key}. Delete it and run again."
            )
        self._verified.add(verify(artifact).key)
        return artifact

    def run(self, stage: str) -> Artifact:
        """Run one stage, or with `all` every missing one in order; return the last artifact."""
        if stage != "all":
            return self._run_stage(stage)
        for name in stages_of(self.settings):
            artifact = self._run_stage(name)
        return artifact

    def command(self, stage: str) -> str:
        """Return the command that makes a stage under this configuration."""
        kept = [word for word in self._overrides if not word.startswith(("stage=", "force="))]
        return shlex.join(["python", "-m", "icm_pipeline", f"stage={stage}", *kept])

    def _slice(self, name: str) -> dict[str, Any]:
        stage = STAGES[name]
        reads = stage.reads + (stage.reads_to_record if self.settings.generate.record else ())
        values = {dotted: _ordered(value_at(self.settings, dotted)) for dotted in reads}
        weights = {}
        for dotted in stage.weights:
            folder = local_folder(value_at(self.settings, dotted))
            if folder is not None and folder.exists():
                weights[dotted] = fingerprint(folder)
        return {"stage": name, "format": FORMAT_VERSION, "config": values, "weights": weights}

    def _parent_keys(self, name: str) -> dict[str, str]:
        return {parent: self.key(parent) for parent in STAGES[name].needs(self.settings)}

    def _run_stage(self, name: str) -> Artifact:
        stage, folder = STAGES[name], self.folder(name)
        found = None if self.settings.force else self.find(name)
        if found is not None:
            log.info("%s: done before, %s", name, folder)
            return found
        parents = {parent: self._parent(name, parent) for parent in stage.needs(self.settings)}
        description = {
            "stage": name, "key": self.key(name), "parents": self._parent_keys(name),
            "device": self.settings.model.device, "settings": self._slice(name),
        }  # fmt: skip
        started = time.monotonic()
        with building(folder, description, self.settings.force) as partial:
            if partial is not None:
                log.info("%s: %s", name, stage.summary)
                stage.run(StageContext(self.settings, parents, partial, self._tracker))
        artifact = open_artifact(folder)
        assert artifact is not None
        self._verified.add(artifact.key)  # hashed a moment ago
        seconds = time.monotonic() - started
        log.info("%s: %.1f s, %s", name, seconds, folder)
        self._tracker.metrics({f"seconds/{name}": seconds})
        return artifact

    def _parent(self, name: str, parent: str) -> Artifact:
        artifact = self.find(parent)
        if artifact is None:
            first = self._first_missing(parent)
            raise ArtifactError(
                f"stage={name} needs the artifact of stage={parent}, which is not there ({self.folder(parent)}). "
                f"Make everything up to it with stage=all, or begin with: {self.command(first)}"
            )
        return artifact

    def _first_missing(self, name: str) -> str:
        """Return the stage to run first: a missing one, this stage or above it, that lacks no parent."""
        missing = [parent for parent in STAGES[name].needs(self.settings) if not self.folder(parent).exists()]
        return self._first_missing(missing[0]) if missing else name


def check_stage(stage: str, more: tuple[str, ...]) -> None:
    """Raise ConfigError listing the stages if there is none of this name."""
    known = (*STAGES, "all", *more)
    if stage not in known:
        raise ConfigError(f"stage={stage} is not known. Choose one of: {', '.join(known)}.")
