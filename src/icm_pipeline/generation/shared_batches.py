"""Several alphas of a sweep in one batch, where the images of one alone leave room in it.

The jobs of a grid that run one after the other in this process make pictures for one another. What a job makes besides
its own waits in memory for its job; as each image has its own seed, it differs only by the rounding of another batch.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icm_pipeline.generation.jobs import Job
    from icm_pipeline.generation.sampling import Sample

    MakeAt = Callable[[list[float], list[Job]], list[list[Sample]]]
log = logging.getLogger(__name__)

MOST_BYTES = 2**30  # of pictures that wait


class SharedBatches:
    """What the jobs of a sweep make for one another; alphas: of the sweep."""

    def __init__(self, alphas: Sequence[float], most_bytes: int = MOST_BYTES) -> None:
        self._alphas = sorted(set(alphas))
        self._most_bytes = most_bytes
        self._most_images: dict[str, int] = {}  # at once, by key, once more than that did not fit into memory
        self._waiting: dict[Any, list[Sample]] = {}

    def group(self, key: str, alpha: float, num_images: int, batch_size: int) -> list[float]:
        """Return the alphas, this one among them, whose batches of num_images are made in one of batch_size.

        key: of all that makes their images but alpha. They are the same whoever asks and whatever is done already, so
        that a sweep that was stopped ends with the same bytes.
        """
        if alpha not in self._alphas:
            return [alpha]
        most = min(batch_size, self._most_images.get(key, batch_size))
        size, index = max(1, most // num_images), self._alphas.index(alpha)
        first = index - index % size
        return self._alphas[first : first + size]

    def too_many(self, key: str, num_images: int) -> None:
        """Take note that so many images at once did not fit into memory."""
        self._most_images[key] = num_images // 2

    def keep(self, key: Any, samples: "list[Sample]") -> None:
        """Let pictures wait, and forget those that wait longest if they are too many."""
        self._waiting[key] = samples
        while sum(map(_bytes, self._waiting.values())) > self._most_bytes:
            self._waiting.pop(next(iter(self._waiting)))

    def take(self, key: Any) -> "list[Sample]":
        """Return the pictures that wait under a key, which then wait no longer; none if there are none."""
        return self._waiting.pop(key, [])


def _bytes(samples: "list[Sample]") -> int:
    return sum(3 * sample.image.width * sample.image.height for sample in samples)


@dataclass(frozen=True)
class SteeredAlongside:
    """One job's view of the batches it shares. key: of all that makes its images but alpha."""

    batches: SharedBatches
    key: str
    alpha: float
    batch_size: int

    def alphas(self, num_images: int) -> list[float]:
        """Return the alphas, this job's among them, at which a batch of so many images is made at once."""
        return self.batches.group(self.key, self.alpha, num_images, self.batch_size)

    def make(self, batch: "list[Job]", make_at: "MakeAt") -> "list[Sample]":
        """Return the images of a batch at this job's alpha, made by an earlier job or now.

        make_at(alphas, batch) -> for each alpha its images. Raises MemoryError if this alpha's alone do not fit.
        """
        return self.batches.take(self._waiting_under(self.alpha, batch)) or self._made_now(batch, make_at)

    def _made_now(self, batch: "list[Job]", make_at: "MakeAt") -> "list[Sample]":
        alphas, failure = self.alphas(len(batch)), None
        try:
            made = dict(zip(alphas, make_at(alphas, batch), strict=True))
        except MemoryError as error:
            failure = str(error)
        if failure is not None:  # told outside of the block above, when the frames that hold tensors are gone
            self.batches.too_many(self.key, len(batch) * len(alphas))
            if len(alphas) == 1:
                raise MemoryError(failure)
            log.warning("%s Going on with fewer alphas in a batch.", failure)
            return self._made_now(batch, make_at)
        if len(alphas) > 1:
            log.info("steer: in one batch at alpha %s", ", ".join(f"{alpha:g}" for alpha in alphas))
        for alpha in alphas:
            if alpha != self.alpha:
                self.batches.keep(self._waiting_under(alpha, batch), made[alpha])
        return made[self.alpha]

    def _waiting_under(self, alpha: float, batch: "list[Job]") -> tuple[str, float, tuple[str, ...]]:
        return self.key, alpha, tuple(job.image_id for job in batch)
