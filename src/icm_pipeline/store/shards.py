"""Long work in shards on disk: a job killed anywhere, or another with another share, resumes from the whole ones.

A shard is a run of neighbouring items. Its table `<first>-<stop>.json` is written last and names its files with their
hashes, so that one that was cut short, deleted or changed is made again. Shards stay in the partial folder until the
artifact is published.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icm_pipeline.store.artifacts import SHARDS
from icm_pipeline.store.files import hash_file, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Share:
    """The part of a stage's work that a job does: number `index`, from 0, of `count`."""

    index: int = 0
    count: int = 1

    @property
    def name(self) -> str:
        return f"{self.index}-of-{self.count}"

    def of(self, total: int) -> range:
        """Return this share of so many things: a run of neighbours, none left out over all shares."""
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)


WHOLE = Share()


@dataclass(frozen=True)
class Shard:
    """Items `start` to `stop` of the work in a partial folder."""

    folder: Path
    start: int
    stop: int
    table: dict[str, Any] | None = None
    """What was kept of the items; None if they are still to be made."""

    @property
    def tensors(self) -> Path:
        """The safetensors file of what is kept of these items beside their own files, whatever the stage puts in it."""
        return self.folder / SHARDS / f"{self.start:07d}-{self.stop:07d}.safetensors"

    def keep(self, ids: Sequence[str], files: Sequence[Path], content: dict[str, Any]) -> "Shard":
        """Write the table of a shard whose files are all there; return the whole shard."""
        hashes = {path.relative_to(self.folder).as_posix(): hash_file(path) for path in files}
        table = {"ids": list(ids[self.start : self.stop]), "files": hashes, **content}
        write_json(self.tensors.with_suffix(".json"), table)
        return replace(self, table=table)

    def read(self, ids: Sequence[str]) -> "Shard | None":
        """Return the shard with its table, None if it is not of these items, or a file of it is missing or changed."""
        try:
            table = json.loads(self.tensors.with_suffix(".json").read_text("utf-8"))
            if table["ids"] != list(ids[self.start : self.stop]):
                return None
            changed = [name for name, digest in table["files"].items() if hash_file(self.folder / name) != digest]
            why = f"{changed[0]} was changed" if changed else ""
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = str(error)
        if why:
            log.warning("making items %d to %d again: %s", self.start, self.stop, why)
            return None
        return replace(self, table=table)


def plan_shards(folder: Path, ids: Sequence[str], share: Share, batch_size: int, shard_size: int) -> list[Shard]:
    """Return the shards that a share of the items consists of: those that are whole, and between them those to make.

    Shares and shards begin where a batch begins, so that every item is made in the same batch whatever the cut. An
    earlier job's cut, by another share or shard size, is used as far as it fits.
    """
    (folder / SHARDS).mkdir(exist_ok=True)
    batches = share.of(-(-len(ids) // batch_size))
    position, stop = batches.start * batch_size, min(batches.stop * batch_size, len(ids))
    size = -(-shard_size // batch_size) * batch_size
    found: dict[int, Shard] = {}
    for first, last in _spans(folder):
        if position <= first < last <= stop and (whole := Shard(folder, first, last).read(ids)):
            found[first] = whole  # the longest, as they are sorted
    shards: list[Shard] = []
    while position < stop:
        later = min((start for start in found if start > position), default=stop)
        border = (position // size + 1) * size
        shards.append(found.get(position) or Shard(folder, position, min(later, border, stop)))
        position = shards[-1].stop
    return shards


def shard_at(folder: Path, start: int, ids: Sequence[str]) -> Shard | None:
    """Return the longest whole shard of these items that begins with number `start`, None if there is none."""
    stops = [last for first, last in _spans(folder) if first == start and last <= len(ids)]
    found = (Shard(folder, start, stop).read(ids) for stop in reversed(stops))
    return next((shard for shard in found if shard is not None), None)


def num_kept(folder: Path) -> int:
    """Return how many items the shards in a partial folder hold, by their tables' names; nothing is hashed."""
    return len({item for span in _spans(folder) for item in range(*span)})


def num_items(shards: Sequence[Shard], made: bool = False) -> int:
    """Return how many items the shards hold; made: how many of those are in whole shards."""
    return sum(shard.stop - shard.start for shard in shards if shard.table is not None or not made)


def _spans(folder: Path) -> Iterator[tuple[int, int]]:
    """Yield the first item and the stop of every shard that has a table in a partial folder, sorted."""
    for path in sorted((folder / SHARDS).glob("*-*.json")):
        words = path.stem.split("-")
        if len(words) == 2 and all(word.isdecimal() for word in words):
            yield int(words[0]), int(words[1])
