"""What a stage is, and what its function is given."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from icm_pipeline.config.schema import Settings
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.shards import WHOLE, Share


@dataclass(frozen=True)
class StageContext:
    """What a stage's function gets: the settings, its whole parents by stage name, and the folder to fill."""

    settings: Settings
    parents: dict[str, Artifact]
    folder: Path
    compared: tuple[Artifact, ...] = ()
    """For a stage that compares: the evaluations that share this one's originals and judges."""
    share: Share = WHOLE
    """For a stage that can be shared: the part of its work to do."""
    prefixes: Path | None = None
    """Where the evaluation images' steps before the first steered one are kept; None if there are none to keep."""


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    reads: dotted names of the settings that change the result; weights: those among them that point to weights on disk;
    device: the setting that says where it computes; compares: whether it shows other evaluations beside its own;
    pictures: settings that point to folders of pictures; images: those that point to folders of images to judge, whose
    content the key stands for; shared: whether several jobs can do a part of its work each.
    """

    name: str
    summary: str
    needs: Callable[[Settings], tuple[str, ...]]
    reads: tuple[str, ...]
    weights: tuple[str, ...] = ()
    reads_to_record: tuple[str, ...] = ()  # read besides, if the stage records activations
    device: str | None = None  # None: on the CPU
    compares: bool = False
    pictures: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    shared: bool = False

    @property
    def run(self) -> Callable[[StageContext], None]:
        function: Callable[[StageContext], None] = import_module(f"icm_pipeline.stages.{self.name}").run
        return function
