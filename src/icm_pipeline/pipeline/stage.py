"""What a stage is: one row of table.py and one file, stages/<name>.py, which is imported when it is first asked for.

The file defines `run(context)`, which fills the artifact's folder. It may define `work(settings, outline)`, what that
takes, for `stage=plan`, `show(tracker, artifact)`, what the dashboard shows of the artifact, and `check(settings,
artifact)`, which raises ValueError where the artifact is of no use to what follows, before that is made.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.config.values import value_at
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.shards import WHOLE, Share
from icm_pipeline.tracking.base import Tracker


@dataclass(frozen=True)
class StageContext:
    """What a stage's `run` is given."""

    settings: Settings
    parents: dict[str, Artifact]
    """The artifacts of the stages that it needs, by stage."""
    folder: Path
    """Where to write; it is published as the artifact when `run` returns."""
    compared: tuple[Artifact, ...] = ()
    """If the stage `compares`: the evaluations to show, this configuration's among them."""
    share: Share = WHOLE
    """If the stage is `shared`: the part of the work to do."""
    models: ModelCache = field(default_factory=ModelCache)
    """Loads models; the run's, so that its stages share one."""
    command: str = ""
    """What repeats the stage."""
    find: Callable[[str], Artifact | None] = lambda stage: None
    """Returns the artifact of another stage if it is there; what is taken of it is not in the stage's key."""


def no_names(settings: Settings) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline: what everything but its own file must know of it."""

    name: str
    summary: str
    """What it does, for the log and for --help."""
    kind: Literal["root", "step", "end", "result"]
    """What its artifacts are to an outputs folder, which `icm ls` and `icm gc` go by.

    root: made from no other artifact. step: kept while a result needs it. end: a result while nothing was made from it.
    result: kept for its own sake.
    """
    needs: Callable[[Settings], tuple[str, ...]] = no_names
    """The stages whose artifacts it is made from."""
    reads: Callable[[Settings], tuple[str, ...]] = no_names
    """Dotted names of the settings and groups that change the result: its key stands for these, and for its parents."""
    part_of: Callable[[Settings], bool] = lambda settings: settings.images is None
    """Whether `stage=all` runs it."""
    devices: Callable[[Settings], tuple[str, ...]] = no_names
    """The settings that say where it computes, that of most of its work first; none for the CPU."""
    makes: tuple[str, ...] = ()
    """What it has the denoiser make: images, activations."""
    at_most: Callable[[Settings], bool] = lambda settings: False
    """Whether it may take less than its `work`, which only what it finds can tell."""
    asks: Callable[[Settings], tuple[str, ...]] = no_names
    """The judges that must be ready before it runs: the labeler, or the judge with all else that evaluates."""
    same_speed: tuple[str, ...] = ()
    """The settings that two runs must share for the time of one to predict the other's."""
    images: tuple[str, ...] = ()
    """The settings that give folders of images for it to judge instead of the pipeline's own."""
    shared: bool = False
    """Whether several jobs or devices can each do a part of it."""
    tells: Callable[[Settings], tuple[str, ...]] = no_names
    """Other stages of which a job that ends with this one tells what came out too."""
    compares: bool = False
    """Whether it shows comparable evaluations beside its own, so that its key stands for them too."""
    version: int = 0
    """Raised where the same settings come to other results than before, so that those are not reused; in the key."""

    def device(self, settings: Settings) -> str:
        """Return where most of its work is done."""
        names = self.devices(settings)
        return str(value_at(settings, names[0])) if names else "cpu"

    def runs_model(self, settings: Settings) -> bool:
        """Say whether the denoiser runs, where compute.device says."""
        return "compute.device" in self.devices(settings)

    def run(self, context: StageContext) -> None:
        """Fill the artifact's folder, or do a share of that."""
        self._file.run(context)

    def work(self, settings: Settings, outline: OutlineConfig | None) -> Workload:
        """Return what making the whole artifact takes; outline: what is known of the model's architecture."""
        return self._file.work(settings, outline) if hasattr(self._file, "work") else Workload()

    def show(self, tracker: Tracker, artifact: Artifact) -> None:
        """Log what is particular to the stage's artifacts."""
        if hasattr(self._file, "show"):
            self._file.show(tracker, artifact)

    def check(self, settings: Settings, artifact: Artifact) -> None:
        """Raise ValueError if the artifact, good as it is, serves no later stage under these settings."""
        if hasattr(self._file, "check"):
            self._file.check(settings, artifact)

    @property
    def _file(self) -> ModuleType:
        return import_module(f"icm_pipeline.stages.{self.name}")
