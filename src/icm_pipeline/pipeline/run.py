"""Running the stages: what is done is skipped, what is missing is made or named."""

import logging
import shlex
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.schema import Settings
from icm_pipeline.config.values import value_at
from icm_pipeline.images.folders import folder_of
from icm_pipeline.pipeline.devices import run_on_devices
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.reads import ROUNDING
from icm_pipeline.pipeline.stage import Stage, StageContext
from icm_pipeline.pipeline.table import STAGES, stages_of
from icm_pipeline.progress import placed
from icm_pipeline.store.artifacts import Artifact, ArtifactError, open_artifact, verify
from icm_pipeline.store.building import building, building_share, missing_shares, tidy
from icm_pipeline.store.manifest import Manifest, earlier_formats
from icm_pipeline.store.shards import WHOLE, Share
from icm_pipeline.tracking.base import Tracker
from icm_pipeline.tracking.dashboard import track_artifact

log = logging.getLogger(__name__)


@dataclass
class Pipeline:
    """The stages under one configuration, run in order. Pipelines share only the `forced` and `models` they are given.

    Example:
        Pipeline(settings, [], NoTracker()).run("all")
    """

    settings: Settings
    overrides: list[str]
    """The command-line words that made the configuration, from which further commands are made."""
    tracker: Tracker
    logs: Path | None = None
    """The folder for what processes on several devices print."""
    forced: set[str] = field(default_factory=set)
    """The keys of what force=true has made again so far."""
    models: ModelCache = field(default_factory=ModelCache)
    reused: list[Artifact] = field(default_factory=list, init=False)
    """The artifacts that were found done."""
    _verified: set[str] = field(default_factory=set, init=False)

    @cached_property
    def keys(self) -> Keys:
        return Keys(self.settings)

    def find(self, name: str) -> Artifact | None:
        """Return a stage's artifact if it is done; raises ArtifactError if it is damaged or was edited."""
        artifact = open_artifact(self.keys.folder(name))
        if artifact is None or artifact.key in self._verified:
            return artifact
        if artifact.key != self.keys.key(name):
            told = f"{artifact.folder} holds the artifact of another key, {artifact.key}. Delete it and run again."
            raise ArtifactError(told)
        self._verified.add(verify(artifact).key)
        return artifact

    def folders(self) -> dict[str, str]:
        """Return where every finished stage of this configuration lies."""
        folders = {name: self.keys.folder(name) for name in stages_of(self.settings)}
        return {name: str(folder.resolve()) for name, folder in folders.items() if folder.exists()}

    def missing(self, stage: str) -> list[str]:
        """Return the stages that running one, or `all`, would make; raises ValueError for a folder that it lacks.

        Without stages that compare: their keys depend on what is evaluated by then, and they lack nothing.
        """
        every = [name for name in stages_of(self.settings) if not STAGES[name].compares]
        there = {name: self.keys.folder(name).exists() for name in every}
        return [name for name in every if stage in ("all", name) and (not there[name] or self._is_forced(name))]

    def _is_forced(self, name: str) -> bool:
        """Say whether a stage is made again although it is there: with force=true, once in a sweep."""
        return self.settings.force and (STAGES[name].compares or self.keys.key(name) not in self.forced)

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
                if artifact is not None:
                    STAGES[name].check(self.settings, artifact)
        return artifact

    def track(self, artifact: Artifact) -> None:
        """Show a stage's artifact on the dashboard."""
        track_artifact(self.tracker, artifact, STAGES[artifact.stage].show)

    def command(self, stage: str) -> str:
        """Return the command that makes a stage under this configuration."""
        left_out = ("stage=", "force=", "shards=", "shard=", "devices=")
        words = [f"stage={stage}", *(word for word in self.overrides if not word.startswith(left_out))]
        words.sort(key=lambda word: not word.startswith("--"))  # Hydra reads options before the other words only
        return shlex.join(["python", "-m", "icm_pipeline", *words])

    def _run_stage(self, name: str, helps: bool) -> Artifact | None:
        stage, folder = STAGES[name], self.keys.folder(name)
        force = self._is_forced(name)
        found = None if force else self.find(name)
        if found is not None:
            tidy(folder)
            log.info("%s: done before, %s", name, folder)
            self.reused.append(found)
            return found
        parents = {parent: self._parent(name, parent) for parent in stage.needs(self.settings)}
        if not parents and (earlier := earlier_formats(folder)):
            log.info("%s: made again, as what is in %s is of an earlier format, %s", name, folder.parent, *earlier[-1:])
        started = time.monotonic()
        if stage.shared and self.settings.devices:
            run_on_devices(name, stage.devices(self.settings)[0], self.settings.devices, self.overrides, self.logs)
        elif stage.shared and self.settings.shards > 1:
            self._run_shares(stage, folder, parents, helps)
            missing = missing_shares(folder, self.settings.shards)
            if missing:
                log.info("%s: this share is done; of %d missing yet: %s", name, self.settings.shards, missing)
                return None
        with building(folder, self._manifest(stage), force) as partial:
            made = self._make(stage, parents, partial, WHOLE)
        seconds = time.monotonic() - started
        if made:
            self._verified.add(self.keys.key(name))  # hashed a moment ago
            self.forced |= {self.keys.key(name)} if force else set()
            self.tracker.metrics({f"seconds/{name}": seconds})
        artifact = self.find(name)
        assert artifact is not None
        log.info("%s: %s%.1f s, %s", name, "" if made else "waited for another job, ", seconds, artifact.folder)
        self.track(artifact)
        return artifact

    def _run_shares(self, stage: Stage, folder: Path, parents: dict[str, Artifact], helps: bool) -> None:
        """Make this job's share of a stage; if it helps, then all that no other job makes, and wait for those."""
        count, first = self.settings.shards, self.settings.shard or 0
        order = [(first + offset) % count for offset in range(count)] if helps else [first]
        for index, wait in [(index, wait) for wait in (False, True) for index in order]:
            share = Share(index, count)
            with building_share(folder, self._manifest(stage), share, wait) as partial:
                self._make(stage, parents, partial, share)

    def _make(self, stage: Stage, parents: dict[str, Artifact], partial: Path | None, share: Share) -> bool:
        """Run a stage in its partial folder; return False if there is none, because another job has done the work."""
        if partial is None:
            return False
        log.info("%s: %s", stage.name if share == WHOLE else f"{stage.name}, share {share.name}", stage.summary)
        compared = self.keys.compared if stage.compares else ()
        command = self.command(stage.name)
        stage.run(StageContext(self.settings, parents, partial, compared, share, self.models, command, self.find))
        return True

    def _manifest(self, stage: Stage) -> Manifest:
        given = [name for name in stage.images if value_at(self.settings, name) is not None]
        rounding = ROUNDING if stage.runs_model(self.settings) else ()
        return Manifest(
            stage=stage.name,
            key=self.keys.key(stage.name),
            parents=self.keys.parents(stage.name),
            model=self.keys.subject(),
            attribute=self.settings.attribute.name,
            device=stage.device(self.settings),
            settings=self.keys.content(stage.name),
            folders={name: str(folder_of(self.settings, name)) for name in given},
            rounding={dotted: value_at(self.settings, dotted) for dotted in rounding},
        )

    def _parent(self, name: str, parent: str) -> Artifact:
        artifact = self.find(parent)
        if artifact is None:
            first = parent  # to run: it lacks no parent
            while missing := [up for up in STAGES[first].needs(self.settings) if not self.keys.folder(up).exists()]:
                first = missing[0]
            raise ArtifactError(
                f"stage={name} needs the artifact of stage={parent}, which is not there ({self.keys.folder(parent)}). "
                f"Make everything up to it with stage=all, or begin with: {self.command(first)}"
            )
        return artifact
