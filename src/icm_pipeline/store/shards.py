"""Long work in shards on disk: a job killed anywhere, or another with another share, goes on from the whole ones.

A shard is a run of neighbouring items. Its table `<first>-<stop>.json` is written last and names its files with their
hashes, so that one that was cut short, deleted or changed is made again. Shards stay in the partial folder until the
artifact is published.
"""

import json
import logging
from collections.abc import Sequence
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
    """Items `start` to `stop`; `table` is what was kept of them, None if they are still to be made."""

    folder: Path
    start: int
    stop: int
    table: dict[str, Any] | None = None

    @property
    def record(self) -> Path:
        """Where tensors of these items go."""
        return self.folder / SHARDS / f"{self.start:07d}-{self.stop:07d}.safetensors"

    @property
    def _table_path(self) -> Path:
        return self.record.with_suffix(".json")

    def keep(self, ids: Sequence[str], files: Sequence[Path], content: dict[str, Any]) -> "Shard":
        """Write the table of a shard whose files are all there; return the whole shard."""
        hashes = {path.relative_to(self.folder).as_posix(): hash_file(path) for path in files}
        table = {"ids": list(ids[self.start : self.stop]), "files": hashes, **content}
        write_json(self._table_path, table)
        return replace(self, table=table)

    def read(self, ids: Sequence[str]) -> "Shard | None":
        """Return the shard with its table, None if it is not of these items, or a file of it is missing or changed."""
        try:
            table = json.loads(self._table_path.read_text("utf-8"))
            if table["ids"] != list(ids[self.start : self.stop]):
                return None
            changed = [name for name, digest in table["files"].items() if hash_file(self.folder / name) != digest]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("making items %d to %d again: %s", self.start, self.stop, error)
            return None
        if changed:
            log.warning("making items %d to %d again: %s was changed", self.start, self.stop, changed[0])
            return None
        return replace(self, table=table)


def plan_shards(folder: Path, ids: Sequence[str], share: Share, batch_size: int, shard_size: int) -> list[Shard]:
    """Return the shards that a share of the items consists of: those that are whole, and between them those to make.

    Shares and shards begin where a batch begins, so that every item is made in the same batch whatever the cut. An
    earlier job's cut, by another share or shard size, is used as far as it fits.
    """
    (folder / SHARDS).mkdir(exist_ok=True)
    share_of_batches = share.of(-(-len(ids) // batch_size))
    position, stop = share_of_batches.start * batch_size, min(share_of_batches.stop * batch_size, len(ids))
    size = -(-shard_size // batch_size) * batch_size
    found = _found(folder, ids, position, stop)
    shards: list[Shard] = []
    while position < stop:
        if position not in found:
            later = min((start for start in found if start > position), default=stop)
            border = (position // size + 1) * size
            shards.append(Shard(folder, position, min(later, border, stop)))
        else:
            shards.append(found[position])
        position = shards[-1].stop
    return shards


def num_kept(folder: Path) -> int:
    """Return how many items the shards in a partial folder hold, by their tables' names; nothing is hashed."""
    kept: set[int] = set()
    for path in (folder / SHARDS).glob("*-*.json"):
        words = path.stem.split("-")
        if len(words) == 2 and all(word.isdecimal() for word in words):
            kept.update(range(int(words[0]), int(words[1])))
    return len(kept)


def num_items(shards: Sequence[Shard], made: bool = False) -> int:
    """Return how many items the shards hold; made: how many of those are in whole shards."""
    return sum(shard.stop - shard.start for shard in shards if shard.table is not None or not made)


def _found(folder: Path, ids: Sequence[str], first: int, stop: int) -> dict[int, Shard]:
    """Return the whole shards within a range by where they start, the longest if several start there."""
    found: dict[int, Shard] = {}
    for path in sorted((folder / SHARDS).glob("*-*.json")):
        words = path.stem.split("-")
        if not (len(words) == 2 and all(word.isdecimal() for word in words)):
            continue
        start, end = map(int, words)
        if first <= start < end <= stop and (whole := Shard(folder, start, end).read(ids)):
            found[start] = whole  # sorted: a longer one comes later
    return found
