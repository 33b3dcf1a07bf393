"""Originals, and what a run or each job of a sweep made of them: pictures, what was wanted, what the judge sees."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Literal, TypeVar

from icm_pipeline.images.table import ImageRow
from icm_pipeline.report.html.thumbnails import Thumbnails
from icm_pipeline.results.images import SteeredImage

Fate = Literal["missed", "obeyed", "left", "undrawn", "unjudged"]
FATES: dict[Fate, str] = {
    "missed": "disobeyed", "obeyed": "obeyed", "left": "left as they were", "undrawn": "no option drawn",
    "unjudged": "not judged",
}  # fmt: skip
Item = TypeVar("Item")


@dataclass(frozen=True)
class Original:
    """An unsteered image."""

    image_id: str
    prompt: str
    seed: int | None
    picture: str
    """Its name among the thumbnails."""


@dataclass(frozen=True)
class Twin:
    """What became of an original."""

    picture: str
    option: str
    """What it was steered to; empty if to nothing."""
    fate: Fate
    caption: str
    """What became of it in a few words."""
    sees: str
    """The option that the judge sees; empty if none."""
    probabilities: list[tuple[str, str, str]]
    """The judge's, of each option: before and after."""


@dataclass(frozen=True)
class Shown:
    """The twins of one way of steering, by the ids of their originals."""

    name: str
    title: str
    figures: str
    originals: int
    """Which of the gallery's sets of originals they are twins of."""
    twins: dict[str, Twin]


@dataclass
class Gallery:
    """The pictures of a page."""

    sets: list[list[Original]] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    pictures: Thumbnails = field(default_factory=Thumbnails)

    @property
    def prompts(self) -> list[str]:
        return list(dict.fromkeys(original.prompt for original in chain(*self.sets)))

    @property
    def options(self) -> list[str]:
        """The options that images were steered to."""
        return list(dict.fromkeys(twin.option for twin in self._twins if twin.option))

    @property
    def fates(self) -> dict[Fate, str]:
        """The fates of images, in the order of FATES, and their words."""
        found = {twin.fate for twin in self._twins}
        return {fate: words for fate, words in FATES.items() if fate in found}

    @property
    def _twins(self) -> Iterable[Twin]:
        return chain.from_iterable(shown.twins.values() for shown in self.shown)

    def add_originals(self, rows: Iterable[ImageRow]) -> int:
        """Add a set of originals and return its number."""
        self.sets.append([Original(row.image_id, row.prompt, row.seed, self.pictures.add(row.path)) for row in rows])
        return len(self.sets) - 1

    def twins_of(
        self, number: int, steered: Mapping[str, ImageRow], judged: Mapping[str, SteeredImage]
    ) -> dict[str, Twin]:
        """Return what became of a set's originals, of those that were steered; both by id."""
        rows = [steered[original.image_id] for original in self.sets[number] if original.image_id in steered]
        return {row.image_id: self._twin(row, judged.get(row.image_id)) for row in rows}

    def _twin(self, row: ImageRow, verdict: SteeredImage | None) -> Twin:
        fate, sees = fate_of(row, verdict), verdict.sees if verdict else ""
        caption = {"missed": f"not {row.option}", "left": "as it was"}.get(fate, row.option)
        told = _probabilities(verdict) if verdict else []
        return Twin(self.pictures.add(row.path), row.option, fate, caption, sees, told)


def fate_of(row: ImageRow, verdict: SteeredImage | None) -> Fate:
    """Return what became of a steered row; verdict: the judge's, None if it was not asked."""
    if verdict is None:
        return "unjudged"
    if verdict.has_missed:
        return "missed"
    if row.is_original:
        return "left"
    return "obeyed" if row.option else "undrawn"


def most_telling(rows: Sequence[ImageRow], judged: Mapping[str, SteeredImage], most: int) -> list[ImageRow]:
    """Return rows, of more than `most` those that disobeyed, up to half, and others spread evenly; in their order."""
    missed = [row for row in rows if fate_of(row, judged.get(row.image_id)) == "missed"]
    ids = {row.image_id for row in missed}
    others = [row for row in rows if row.image_id not in ids]
    kept = spread(missed, max(most // 2, most - len(others)))
    ids = {row.image_id for row in (*kept, *spread(others, most - len(kept)))}
    return [row for row in rows if row.image_id in ids]


def one_of_each(rows: Sequence[ImageRow], most: int) -> list[ImageRow]:
    """Return at most so many rows, in turn of every prompt and option, in their order."""
    groups: dict[tuple[str, str], list[ImageRow]] = {}
    for row in rows:
        groups.setdefault((row.prompt, row.option), []).append(row)
    turns = [row for turn in zip_longest(*groups.values()) for row in turn if row is not None]
    ids = {row.image_id for row in turns[:most]}
    return [row for row in rows if row.image_id in ids]


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many items, evenly spread, in their order."""
    if len(items) <= most:
        return list(items)
    return [items[place * len(items) // most] for place in range(most)]


def _probabilities(verdict: SteeredImage) -> list[tuple[str, str, str]]:
    sides = (["-" if value != value else f"{value:.0%}" for value in side] for side in (verdict.before, verdict.shown))
    return list(zip(verdict.options, *sides, strict=True))
