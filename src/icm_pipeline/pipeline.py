"""Running the stages: a key for each, what is done is skipped, what is missing is made or named.

A stage's key is a hash of the part of the configuration that changes its result and of the keys of what it needs.
"""

import logging
import re
import shlex
import time
from pathlib import Path
from typing import Any

from icm_pipeline.artifacts import (
    FORMAT_VERSION,
    Artifact,
    ArtifactError,
    fingerprint,
    listing,
    make_key,
    open_artifact,
    verify,
)
from icm_pipeline.backbones.paths import brought_weights, local_folder
from icm_pipeline.building import building, building_share, missing_shares, settled, tidy
from icm_pipeline.caches import prefix_folder
from icm_pipeline.comparisons import comparable_evaluations
from icm_pipeline.config import Settings, value_at
from icm_pipeline.dashboard import track_artifact
from icm_pipeline.devices import run_on_devices
from icm_pipeline.image_folders import content_key, folder_of, list_images
from icm_pipeline.key_values import counted
from icm_pipeline.progress import placed
from icm_pipeline.shards import WHOLE, Share
from icm_pipeline.shared_batches import SharedBatches, SteeredAlongside
from icm_pipeline.stage_table import ROUNDING, Stage, StageContext, stage_named, stages_of
from icm_pipeline.tracking import Tracker

log = logging.getLogger(__name__)


def _ordered(value: Any) -> Any:
    """Return plain data with every mapping as a list of pairs: the options' order is part of what a key stands for."""
    return [[key, _ordered(inner)] for key, inner in value.items()] if isinstance(value, dict) else value


class Pipeline:
    """The stages under one configuration, with their keys and folders.

    overrides: the command-line words that made the configuration, so that commands can be made of them; logs:
    the folder for what processes started on several devices print; shared: what the jobs of a sweep make for one
    another; forced: the keys of what they were forced to make; reused: the artifacts that a run found done before.
    """

    def __init__(
        self,
        settings: Settings,
        overrides: list[str],
        tracker: Tracker,
        logs: Path | None = None,
        shared: SharedBatches | None = None,
        forced: set[str] | None = None,
    ) -> None:
        self.settings = settings
        self._logs = logs
        self._shared = shared
        self._forced = set() if forced is None else forced
        self._overrides = overrides
        self._tracker = tracker
        self.reused: list[Artifact] = []
        self._keys: dict[str, str] = {}
        self._contents: dict[str, str] = {}
        self._verified: set[str] = set()
        self._compared: tuple[Artifact, ...] | None = None

    def key(self, name: str) -> str:
        """Return a stage's key under this configuration."""
        if name not in self._keys:
            self._keys[name] = make_key({**self._slice(name), "parents": self._parent_keys(name)})
        return self._keys[name]

    def folder(self, name: str) -> Path:
        """Return where a stage's artifact lies or will lie; attributes with the same prompts share their images."""
        stage_folder = Path(self.settings.paths.outputs) / "artifacts" / name
        label = f"{self._subject()}-{self.settings.attribute.name}-{self.key(name)}"
        return settled(stage_folder / label)

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

    def folders(self) -> dict[str, str]:
        """Return where every finished stage of this configuration lies."""
        folders = {name: self.folder(name) for name in stages_of(self.settings)}
        return {name: str(folder.resolve()) for name, folder in folders.items() if folder.exists()}

    def missing(self, stage: str) -> list[str]:
        """Return the stages that running one, or `all`, would make; raises ValueError for a folder that it lacks.

        Those that compare are none of them: their keys depend on what is evaluated by then, and they lack nothing.
        """
        every = [name for name in stages_of(self.settings) if not stage_named(name, self.settings).compares]
        there = {name: self.folder(name).exists() for name in every}
        return [name for name in every if stage in ("all", name) and (not there[name] or self._is_forced(name))]

    def _is_forced(self, name: str) -> bool:
        """Say whether a stage is made again although it is there: with force=true, once in a sweep."""
        return self.settings.force and (stage_named(name, self.settings).compares or self.key(name) not in self._forced)

    def compared(self) -> tuple[Artifact, ...]:
        """Return the evaluations on disk that can stand beside this configuration's, as they were when first asked."""
        if self._compared is None:
            evaluations = self.folder("evaluate").parent
            self._compared = comparable_evaluations(evaluations, self._slice("evaluate"), self.key("originals"))
        return self._compared

    def run(self, stage: str) -> Artifact | None:
        """Run one stage, or with `all` every missing one in order; return the last artifact.

        None if this job did its share of one stage and other shares are missing. With `all`, or where no share was
        asked for, it does what the others leave undone.
        """
        if stage != "all":
            return self._run_stage(stage, helps=self.settings.shard is None)
        stages = stages_of(self.settings)
        for number, name in enumerate(stages, 1):
            with placed(number, len(stages)):
                artifact = self._run_stage(name, helps=True)
        return artifact

    def command(self, stage: str) -> str:
        """Return the command that makes a stage under this configuration."""
        left_out = ("stage=", "force=", "shards=", "shard=", "devices=")
        kept = [word for word in self._overrides if not word.startswith(left_out)]
        options = [word for word in kept if word.startswith("--")]  # Hydra reads them before the other words only
        words = [word for word in kept if not word.startswith("--")]
        return shlex.join(["python", "-m", "icm_pipeline", *options, f"stage={stage}", *words])

    def _slice(self, name: str) -> dict[str, Any]:
        stage = stage_named(name, self.settings)
        reads = stage.reads + (stage.reads_to_record if self.settings.generate.record else ())
        values = {dotted: _ordered(counted(self.settings, dotted)) for dotted in reads}
        weights = {}
        for dotted in stage.weights:
            value = value_at(self.settings, dotted)
            where = brought_weights if dotted.endswith(".model") else local_folder
            folder = None if value is None else where(value)
            if folder is not None and folder.exists():
                weights[dotted] = fingerprint(folder)
        for dotted in stage.pictures:
            value = value_at(self.settings, dotted)
            if value is not None:
                folder = Path(value).expanduser()
                if not folder.is_dir():
                    raise ValueError(f"{dotted}={value} is no folder. Give a folder of pictures or of another run.")
                weights[dotted] = listing(folder)
        given = [dotted for dotted in stage.images if value_at(self.settings, dotted) is not None]
        content = {"images": {dotted: self._content(dotted) for dotted in given}} if given else {}
        shown = {"compared": [artifact.key for artifact in self.compared()]} if stage.compares else {}
        return {"stage": name, "format": FORMAT_VERSION, "config": values, "weights": weights, **content, **shown}

    def _content(self, setting: str) -> str:
        """Return the hash of a folder of images, read once."""
        if setting not in self._contents:
            self._contents[setting] = content_key(list_images(self.settings, setting).rows)
        return self._contents[setting]

    def _parent_keys(self, name: str) -> dict[str, str]:
        return {parent: self.key(parent) for parent in stage_named(name, self.settings).needs(self.settings)}

    def _run_stage(self, name: str, helps: bool) -> Artifact | None:
        stage, folder = stage_named(name, self.settings), self.folder(name)
        force = self._is_forced(name)
        found = None if force else self.find(name)
        if found is not None:
            tidy(folder)
            log.info("%s: done before, %s", name, folder)
            self.reused.append(found)
            return found
        parents = {parent: self._parent(name, parent) for parent in stage.needs(self.settings)}
        started = time.monotonic()
        if stage.shared and stage.device and self.settings.devices:
            run_on_devices(name, stage.device, self.settings.devices, self._overrides, self._logs)
        elif stage.shared and self.settings.shards > 1:
            self._run_shares(stage, folder, parents, helps)
            missing = missing_shares(folder, self.settings.shards)
            if missing:
                log.info("%s: this share is done; of %d missing yet: %s", name, self.settings.shards, missing)
                return None
        with building(folder, self._description(stage), force) as partial:
            if partial is not None:
                log.info("%s: %s", name, stage.summary)
                stage.run(self._context(stage, parents, partial, WHOLE))
        seconds = time.monotonic() - started
        if partial is not None:
            self._verified.add(self.key(name))  # hashed a moment ago
            self._forced |= {self.key(name)} if force else set()
            self._tracker.metrics({f"seconds/{name}": seconds})
        artifact = self.find(name)
        assert artifact is not None
        by = "" if partial is not None else "waited for another job, "
        log.info("%s: %s%.1f s, %s", name, by, seconds, artifact.folder)
        track_artifact(self._tracker, artifact)
        return artifact

    def _run_shares(self, stage: Stage, folder: Path, parents: dict[str, Artifact], helps: bool) -> None:
        """Make this job's share of a stage; if it helps, then all that no other job makes, and wait for those."""
        count, first = self.settings.shards, self.settings.shard or 0
        order = [(first + offset) % count for offset in range(count)] if helps else [first]
        turns = [(index, False) for index in order] + [(index, True) for index in order]
        for index, wait in turns:
            share = Share(index, count)
            with building_share(folder, self._description(stage), share, wait) as partial:
                if partial is not None:
                    log.info("%s, share %s: %s", stage.name, share.name, stage.summary)
                    stage.run(self._context(stage, parents, partial, share))

    def _context(self, stage: Stage, parents: dict[str, Artifact], partial: Path, share: Share) -> StageContext:
        compared = self.compared() if stage.compares else ()
        alongside = self._alongside() if stage.name == "steer" else None
        return StageContext(self.settings, parents, partial, compared, share, self.prefix_folder(), alongside)

    def _alongside(self) -> SteeredAlongside | None:
        """Return what steering shares with the jobs of its sweep that differ in alpha alone."""
        settings = self.settings
        if self._shared is None or not settings.generate.share_batches or settings.method.name == "none":
            return None
        content = self._slice("steer")
        but_alpha = {**content, "config": {**content["config"], "alpha": None}, "parents": self._parent_keys("steer")}
        return SteeredAlongside(self._shared, make_key(but_alpha), settings.alpha, settings.model.batch_size)

    def prefix_folder(self) -> Path | None:
        """Return the folder of first steps that all runs with these originals and this first steered step share.

        None if there are none to share; force=true computes them again.
        """
        settings, first = self.settings, self.settings.method.first_step
        if settings.images is not None or first < 1 or not settings.generate.reuse_prefix or settings.force:
            return None
        return prefix_folder(self.folder("originals").parent, self.key("originals"), first, settings.model.device)

    def _subject(self) -> str:
        """Return what made the images: the model's name, or that of the folder they are in."""
        if self.settings.images is None:
            return self.settings.model.name
        return re.sub(r"[^\w.+-]+", "_", folder_of(self.settings, "images").name).strip("._")[:60] or "images"

    def _description(self, stage: Stage) -> dict[str, Any]:
        given = [name for name in stage.images if value_at(self.settings, name) is not None]
        folders = {name: str(folder_of(self.settings, name)) for name in given}
        by_model = stage.device == "model.device"
        rounding = {dotted: value_at(self.settings, dotted) for dotted in ROUNDING} if by_model else {}
        return {
            "stage": stage.name, "key": self.key(stage.name), "parents": self._parent_keys(stage.name),
            "model": self._subject(), "attribute": self.settings.attribute.name,
            "device": value_at(self.settings, stage.device) if stage.device else "cpu",
            "settings": self._slice(stage.name),
            **({"folders": folders} if folders else {}),
            **({"rounding": rounding} if rounding else {}),
        }  # fmt: skip

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
        needs = stage_named(name, self.settings).needs(self.settings)
        missing = [parent for parent in needs if not self.folder(parent).exists()]
        return self._first_missing(missing[0]) if missing else name
