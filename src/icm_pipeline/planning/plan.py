"""What a run, or all jobs of a sweep, would do: which artifacts are there, which are to be made, at what cost.

Jobs are added in the order in which they would run; what one of them makes, the later ones find.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from icm_pipeline.backbones.outline import outline_of
from icm_pipeline.config.schema import ModelConfig, OutlineConfig, Settings
from icm_pipeline.localization.selection import LayerScore, select_layers
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.table import STAGES, stages_of
from icm_pipeline.planning.rates import Rates
from icm_pipeline.planning.workload import (
    NOTHING,
    Workload,
    has_prefix,
    num_evaluation_images,
    passes_before,
    picture_size,
    prefix_bytes,
    workloads,
)
from icm_pipeline.store.artifacts import Artifact, ArtifactError, open_artifact
from icm_pipeline.store.partial import is_begun, partial_of
from icm_pipeline.store.shards import num_kept

PREFIXES = "first steps"  # what a plan calls the denoiser's outputs that are kept beside the originals


@dataclass(frozen=True)
class Item:
    """One artifact of a plan.

    work: what is left to do for it, nothing if it is done; kept: images that an interrupted job left of it; pictures:
    bytes of those still to be written, None if unknown; at_most: whether that is a bound; seconds: of one device, None
    if unknown; shared: whether several devices can share the work; problem: why what is there cannot be used.
    """

    stage: str
    done: bool
    work: Workload = NOTHING
    kept: int = 0
    pictures: float | None = 0.0
    at_most: bool = False
    seconds: float | None = 0.0
    shared: bool = False
    problem: str = ""

    @property
    def disk(self) -> float | None:
        """Bytes still to be written that stay; None if unknown."""
        if self.work.stored is None or self.pictures is None:
            return None
        return self.work.stored + self.pictures


@dataclass(frozen=True)
class JobPlan:
    """What one job is the first to make, and what an earlier job of the sweep makes for it; by stage."""

    words: tuple[str, ...]
    settings: Settings
    outline: OutlineConfig | None
    makes: tuple[str, ...]
    shares: tuple[str, ...]


class Plan:
    """The plan of all jobs that were added; `items`: each artifact once, by stage and key."""

    def __init__(self) -> None:
        self.jobs: list[JobPlan] = []
        self.items: dict[tuple[str, str], Item] = {}
        self._rates: dict[str, Rates] = {}
        self._outlines: dict[str, OutlineConfig | None] = {}

    def add(self, settings: Settings, words: Sequence[str]) -> JobPlan:
        """Add a job; raises ValueError for layers that its model does not have, as the job would."""
        outline = self._outline(settings.model)
        _refuse_layers(settings, outline)
        keys, works = Keys(settings), workloads(settings, outline)
        makes: list[str] = []
        shares: list[str] = []
        for stage in stages_of(settings):
            known = self.items.get((stage, keys.key(stage)))
            if known is not None:
                shares += [] if known.done else [stage]
                continue
            work = works[stage]
            item = self._item(stage, keys, work, outline)
            takes_prefix = not item.done and stage in ("originals", "steer") and has_prefix(settings)
            if takes_prefix and self._keep_prefix(keys, outline):
                item = self._item(stage, keys, _less_prefix(work, settings), outline)
            self.items[stage, keys.key(stage)] = item
            makes += [] if item.done else [stage]
        job = JobPlan(tuple(words), settings, outline, tuple(makes), tuple(shares))
        self.jobs.append(job)
        return job

    def _outline(self, model: ModelConfig) -> OutlineConfig | None:
        source = repr((model.path, model.revision, model.sites, model.outline))
        if source not in self._outlines:
            self._outlines[source] = outline_of(model)
        return self._outlines[source]

    def _item(self, stage: str, keys: Keys, work: Workload, outline: OutlineConfig | None) -> Item:
        settings = keys.settings
        artifact, problem = _found(keys.folder(stage))
        if artifact is not None and not settings.force:
            return Item(stage, done=True)
        partial, kept = partial_of(keys.folder(stage)), 0
        if STAGES[stage].shared and is_begun(partial, keys.key(stage)):
            kept = min(num_kept(partial), work.num_images)
            work = _less_kept(work, kept)
        rates = self._rates.setdefault(settings.paths.outputs, Rates(Path(settings.paths.outputs)))
        each, at_most = rates.picture_bytes(settings) if work.num_pictures else 0.0, False
        if each is None:
            size = picture_size(settings.model, outline)
            each, at_most = (None, False) if size is None else (3.0 * size[0] * size[1], True)
        return Item(
            stage, False, work, kept, None if each is None else each * work.num_pictures, at_most,
            rates.seconds(stage, settings, work), STAGES[stage].shared, problem,
        )  # fmt: skip

    def _keep_prefix(self, keys: Keys, outline: OutlineConfig | None) -> bool:
        """Say whether a job finds the steps before the first steered one; if not, it keeps them from now on."""
        folder = keys.prefix_folder()
        assert folder is not None
        if (PREFIXES, folder.name) in self.items:
            return True
        there = sum(1 for _ in folder.glob("*.safetensors")) >= num_evaluation_images(keys.settings)
        work = NOTHING if there else Workload(stored=prefix_bytes(keys.settings, outline))
        self.items[PREFIXES, folder.name] = Item(PREFIXES, there, work)
        return there


@dataclass(frozen=True)
class Total:
    """The sum over items. Disk and seconds count what is known of them; `unknown` of each says that there is more.

    device_memory, memory: the largest of one item; shared_seconds: the part of seconds that several devices can share.
    """

    num_items: int
    num_done: int
    kept: int
    num_images: int
    passes: int
    num_probes: int
    disk: float
    disk_unknown: bool
    at_most: bool
    device_memory: int
    memory: int
    memory_unknown: bool
    seconds: float
    shared_seconds: float
    seconds_unknown: bool


def total(items: Iterable[Item]) -> Total:
    """Return what items come to together."""
    found = list(items)
    works = [item.work for item in found]
    return Total(
        num_items=len(found),
        num_done=sum(item.done for item in found),
        kept=sum(item.kept for item in found),
        num_images=sum(work.num_images for work in works),
        passes=sum(work.passes for work in works),
        num_probes=sum(work.num_probes or 0 for work in works),
        disk=sum(item.disk or 0 for item in found),
        disk_unknown=any(item.disk is None for item in found),
        at_most=any(item.at_most for item in found),
        device_memory=max((work.device_memory or 0 for work in works), default=0),
        memory=max((work.memory or 0 for work in works), default=0),
        memory_unknown=any(work.memory is None for work in works),
        seconds=sum(item.seconds or 0 for item in found),
        shared_seconds=sum(item.seconds or 0 for item in found if item.shared),
        seconds_unknown=any(item.seconds is None for item in found),
    )


def most_disk(items: Iterable[Item]) -> float:
    """Return the bytes needed at once when items are made in order: what is written so far, and what goes again."""
    written, most = 0.0, 0.0
    for item in items:
        written += item.disk or 0
        most = max(most, written + (item.work.temporary or 0))
    return most


def _refuse_layers(settings: Settings, outline: OutlineConfig | None) -> None:
    """Raise ValueError, as selecting would, for a kind of layers or a number of them that the model does not have."""
    layers = settings.layers
    if outline is None or layers.rule == "named":  # their names are known only to the model itself
        return
    unscored = [
        LayerScore(str(number), kind, 0.0)
        for kind, pairs in outline.widths.items()
        for number in range(sum(count for _, count in pairs))
    ]
    select_layers(unscored, layers.kind, layers.rule, layers.k, layers.names, layers.seed)


def _found(folder: Path) -> tuple[Artifact | None, str]:
    """Return the artifact in a folder, and what is wrong with it if it is damaged. Files are not hashed again."""
    try:
        return open_artifact(folder), ""
    except ArtifactError as error:
        return None, str(error)


def _less_kept(work: Workload, kept: int) -> Workload:
    """Return what is left of a stage of which an interrupted job left some images."""
    left = (work.num_images - kept) / work.num_images if work.num_images else 1.0
    return replace(
        work,
        num_images=work.num_images - kept,
        num_pictures=round(work.num_pictures * left),
        passes=round(work.passes * left),
        temporary=None if work.temporary is None else round(work.temporary * left),
    )


def _less_prefix(work: Workload, settings: Settings) -> Workload:
    before = passes_before(settings.method.first_step, settings.model.scheduler)
    return replace(work, passes=work.passes - work.num_images * before)
