"""Batches that fit into memory."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import Sample
from icm_pipeline.hooks.recording import Recording

log = logging.getLogger(__name__)

Made = TypeVar("Made")


@dataclass(frozen=True)
class Batch:
    """What was made of some jobs at once."""

    jobs: list[Job]
    samples: list[Sample]
    """Their images; empty where only activations are wanted."""
    recording: Recording | None = None


def fitting(
    runs: Iterable[list[Job]], make: Callable[[list[Job]], Made], size: int, grow: bool = False
) -> Iterator[Made]:
    """Make the jobs of every run in batches of `size`, none across two runs, and yield each batch once it is made.

    The size is halved, for good, whenever a batch does not fit into memory; with `grow` it is doubled after every full
    batch until then. Raises MemoryError if a single image does not fit.
    """
    for jobs in runs:
        start = 0
        while start < len(jobs):
            batch = jobs[start : start + size]
            try:
                made = make(batch)
            except MemoryError as error:
                if len(batch) == 1:
                    raise
                size, grow = len(batch) // 2, False
                log.warning("%s Going on with %d at once.", error, size)
                continue
            yield made
            start += len(batch)
            if grow and len(batch) == size:
                size *= 2
