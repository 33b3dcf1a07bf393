"""What a run, or all jobs of a sweep, would do: which artifacts are there, which are to be made, at what cost.

Jobs are added in the order in which they would run; what one of them makes, the later ones find.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from icm_pipeline.backbones.outline import outline_of
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.localization.selection import LayerScore, select_layers
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.stage import Stage
from icm_pipeline.pipeline.table import STAGES, stages_of
from icm_pipeline.pipeline.workload import Workload, picture_size
from icm_pipeline.planning.rates import MeasuredMethod, Rates
from icm_pipeline.store.artifacts import ArtifactError, open_artifact
from icm_pipeline.store.partial import is_begun, partial_of
from icm_pipeline.store.shards import num_kept

PREFIXES = "first steps"  # what a plan calls the denoiser's outputs that are kept beside the originals


@dataclass(frozen=True)
class Item:
    """One artifact of a plan."""

    stage: str
    done: bool
    work: Workload = field(default_factory=Workload)
    """What is left to do for it; nothing if it is done."""
    kept: int = 0
    """Images that an interrupted job left of it."""
    pictures: float | None = 0.0
    """Bytes of the pictures still to be written; None if unknown."""
    at_most: bool = False
    """Whether that is a bound."""
    work_at_most: bool = False
    """Whether the work is a bound."""
    seconds: float | None = 0.0
    """Of one device; None if unknown."""
    shared: bool = False
    """Whether several devices can share the work."""
    problem: str = ""
    """Why what is there cannot be used."""

    @property
    def disk(self) -> float | None:
        """Bytes still to be written that stay; None if unknown."""
        return None if self.work.stored is None or self.pictures is None else self.work.stored + self.pictures


@dataclass(frozen=True)
class JobPlan:
    """What one job would do."""

    words: tuple[str, ...]
    settings: Settings
    outline: OutlineConfig | None
    makes: tuple[str, ...]
    """The stages whose artifacts it is the first to make."""
    shares: tuple[str, ...]
    """The stages whose artifacts an earlier job of the sweep makes for it."""
    images: int
    """That it is the first to make."""
    measured: MeasuredMethod
    """What its method took here before."""


class Plan:
    """The plan of all jobs that were added."""

    def __init__(self) -> None:
        self.jobs: list[JobPlan] = []
        self.items: dict[tuple[str, str], Item] = {}
        """Each artifact once, by stage and key."""
        self._rates: dict[str, Rates] = {}
        self._outlines: dict[str, OutlineConfig | None] = {}

    def add(self, settings: Settings, words: Sequence[str]) -> JobPlan:
        """Add a job; raises ValueError for layers that its model does not have, as the job would, and adds nothing."""
        source = repr((settings.model.path, settings.model.revision, settings.model.sites, settings.model.outline))
        if source not in self._outlines:
            self._outlines[source] = outline_of(settings.model)
        outline = self._outlines[source]
        _check_layers(settings, outline)
        keys = Keys(settings)
        wanted = [(name, keys.key(name)) for name in stages_of(settings)]
        works = {key: STAGES[key[0]].work(settings, outline) for key in wanted if key not in self.items}
        makes: list[str] = []
        images = 0
        shares: list[str] = []
        for name, key in wanted:
            stages = shares
            if (work := works.get((name, key))) is not None:
                stages, self.items[name, key] = makes, self._item(STAGES[name], keys, outline, work)
                images += self.items[name, key].work.num_pictures
            stages += [] if self.items[name, key].done else [name]
        measured = self._rates_of(settings).of_method(settings)
        job = JobPlan(tuple(words), settings, outline, tuple(makes), tuple(shares), images, measured)
        self.jobs.append(job)
        return job

    def _item(self, stage: Stage, keys: Keys, outline: OutlineConfig | None, work: Workload) -> Item:
        settings, folder = keys.settings, keys.folder(stage.name)
        problem = ""
        try:  # files are not hashed again
            if open_artifact(folder) is not None and not settings.force:
                return Item(stage.name, done=True)
        except ArtifactError as error:
            problem = str(error)
        if work.prefix_passes and self._has_prefix(keys, work):
            work = replace(work, passes=work.passes - work.prefix_passes)
        rates = self._rates_of(settings)
        seconds, kept = rates.seconds(stage, settings, work), 0
        if is_begun(partial_of(folder), keys.key(stage.name)):
            kept = min(num_kept(partial_of(folder)), work.num_images)
        if kept:
            seconds = seconds and seconds * (1 - kept / work.num_images)
            work = work.less(kept)
        each, at_most = rates.picture_bytes(settings) if work.num_pictures else 0.0, False
        if each is None and (size := picture_size(settings.model, outline)):
            each, at_most = 3.0 * size[0] * size[1], True
        pictures = None if each is None else each * work.num_pictures
        bounds = (at_most, stage.at_most(settings))
        return Item(stage.name, False, work, kept, pictures, *bounds, seconds, stage.shared, problem)

    def _rates_of(self, settings: Settings) -> Rates:
        if (outputs := settings.paths.outputs) not in self._rates:
            self._rates[outputs] = Rates(Path(outputs))
        return self._rates[outputs]

    def _has_prefix(self, keys: Keys, work: Workload) -> bool:
        """Say whether a job finds the steps before the first steered one; if not, it keeps them from now on."""
        folder = keys.prefix_folder()
        if folder is None:
            return False
        if (PREFIXES, folder.name) in self.items:
            return True
        there = sum(1 for _ in folder.glob("*.safetensors")) >= work.num_images
        kept = Workload() if there else Workload(stored=work.prefix_bytes)
        self.items[PREFIXES, folder.name] = Item(PREFIXES, there, kept)
        return there


def most_disk(items: Iterable[Item]) -> float:
    """Return the bytes needed at once when items are made in order: what is written so far, and what goes again."""
    written, most = 0.0, 0.0
    for item in items:
        written += item.disk or 0
        most = max(most, written + (item.work.temporary or 0))
    return most


def _check_layers(settings: Settings, outline: OutlineConfig | None) -> None:
    """Raise ValueError, as selecting would, for a kind of layers or a number of them that the model does not have."""
    layers = settings.layers
    if outline is None or layers.rule == "named":  # their names are known only to the model itself
        return
    unscored = [
        LayerScore(str(number), kind, 0.0) for kind, count in outline.num_layers.items() for number in range(count)
    ]
    select_layers(unscored, layers.kind, layers.rule, layers.k, layers.names, layers.seed)
