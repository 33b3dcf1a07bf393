"""Batches that fit into memory."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import Sample
from icm_pipeline.hooks.recording import Recording

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """What one batch produced; `samples` is empty where only activations are wanted, `recording` None without them."""

    size: int
    samples: list[Sample]
    recording: Recording | None = None


class FittingBatches:
    """Makes batches of a size that is halved, for good, whenever one does not fit into memory.

    grow: until then it is doubled after every batch that was full.
    """

    def __init__(self, make_batch: Callable[[list[Job]], Batch], size: int, grow: bool) -> None:
        self._make_batch = make_batch
        self._size = size
        self._grow = grow

    def make(self, jobs: list[Job]) -> Iterator[Batch]:
        """Make all jobs; raises MemoryError if a single one does not fit."""
        start = 0
        while start < len(jobs):
            batch = jobs[start : start + self._size]
            try:
                made = self._make_batch(batch)
            except MemoryError as error:
                if len(batch) == 1:
                    raise
                self._size, self._grow = len(batch) // 2, False
                log.warning("%s Going on with %d at once.", error, self._size)
                continue
            yield made
            start += len(batch)
            if self._grow and len(batch) == self._size:
                self._size *= 2
