"""Several alphas of a sweep in one batch, where the images of one alone leave room in it.

The jobs of a grid that run one after the other in this process make pictures for one another. What a job makes besides
its own waits in memory for its job; as each image has its own seed, it differs only by the rounding of another batch.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icm_pipeline.prompts import Job
    from icm_pipeline.sampling import Sample

    MakeAt = Callable[[list[float], list[Job]], list[list[Sample]]]

log = logging.getLogger(__name__)

MOST_WAITING = 512  # pictures


class SharedBatches:
    """What the jobs of a sweep make for one another; alphas: of the sweep, in its order."""

    def __init__(self, alphas: Sequence[float], most_waiting: int = MOST_WAITING) -> None:
        self.alphas = tuple(alphas)
        self._most_waiting = most_waiting
        self._waiting: dict[tuple[str, float, tuple[str, ...]], list[Sample]] = {}

    def after(self, alpha: float) -> tuple[float, ...]:
        """Return the alphas whose jobs come later than this one's."""
        return self.alphas[self.alphas.index(alpha) + 1 :] if alpha in self.alphas else ()

    def room(self) -> int:
        """Return how many more pictures may wait."""
        return self._most_waiting - sum(len(samples) for samples in self._waiting.values())

    def keep(self, key: str, alpha: float, samples: list["Sample"]) -> None:
        self._waiting[key, alpha, tuple(sample.job.image_id for sample in samples)] = samples

    def take(self, key: str, alpha: float, image_ids: Sequence[str]) -> list["Sample"]:
        """Return the pictures that wait for a batch, which then wait no longer; none if there are none."""
        return self._waiting.pop((key, alpha, tuple(image_ids)), [])


class SteeredAlongside:
    """One job's view of the batches it shares.

    key: of all that makes its images but alpha; others: the alphas of later jobs whose images are not there yet.
    """

    def __init__(self, batches: SharedBatches, key: str, alpha: float, others: Sequence[float]) -> None:
        self._batches = batches
        self._key = key
        self._alpha = alpha
        self._others = list(others)

    def make(self, batch: "list[Job]", batch_size: int, make_at: "MakeAt") -> "list[Sample]":
        """Return the images of a batch at this job's alpha: an earlier job's, or made now, with others' if they fit.

        batch_size: how many images fit; make_at(alphas, batch) -> for each alpha its images.
        """
        made = self._batches.take(self._key, self._alpha, [job.image_id for job in batch])
        if made:
            return made
        others = self._fitting(len(batch), batch_size)
        try:
            samples, *rest = make_at([self._alpha, *others], batch)
        except MemoryError as error:
            if not others:
                raise
            log.warning("%s Going on with one alpha at a time.", error)
            self._others.clear()
            return make_at([self._alpha], batch)[0]
        if others:
            log.info("steer: made along in one batch: alpha %s", ", ".join(f"{alpha:g}" for alpha in others))
        for alpha, theirs in zip(others, rest, strict=True):
            self._batches.keep(self._key, alpha, theirs)
        return samples

    def _fitting(self, num_images: int, batch_size: int) -> list[float]:
        in_all = min(batch_size, num_images + self._batches.room()) // num_images
        return self._others[: max(0, in_all - 1)]
