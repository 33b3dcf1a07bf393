"""A sweep's alphas in one batch: what fits, what waits for its job, what happens when the memory does not suffice."""

import pytest

from icm_pipeline.prompts import Job
from icm_pipeline.sampling import Sample
from icm_pipeline.shared_batches import SharedBatches, SteeredAlongside

JOBS = [Job(f"{number:06d}", "a face", 0, number) for number in range(4)]


class Maker:
    """Makes pictures that say at which alpha; fits: how many at once."""

    def __init__(self, fits: int = 100) -> None:
        self.asked: list[list[float]] = []
        self._fits = fits

    def __call__(self, alphas: list[float], batch: list[Job]) -> list[list[Sample]]:
        if len(alphas) * len(batch) > self._fits:
            raise MemoryError("too many")
        self.asked.append(alphas)
        return [[Sample(job, alpha) for job in batch] for alpha in alphas]


def shown(samples: list[Sample]) -> list[tuple[str, float]]:
    return [(sample.job.image_id, sample.image) for sample in samples]


def expected(alpha: float) -> list[tuple[str, float]]:
    return [(job.image_id, alpha) for job in JOBS]


def test_each_job_gets_its_own_pictures_and_a_batch_is_made_for_as_many_alphas_as_fit() -> None:
    batches, make = SharedBatches([1.0, 2.0, 3.0, 4.0]), Maker()
    for alpha in batches.alphas:
        alongside = SteeredAlongside(batches, "key", alpha, batches.after(alpha))
        assert shown(alongside.make(JOBS, 13, make)) == expected(alpha)
    assert make.asked == [[1.0, 2.0, 3.0], [4.0]]


def test_a_full_batch_takes_no_one_along() -> None:
    batches, make = SharedBatches([1.0, 2.0]), Maker()
    SteeredAlongside(batches, "key", 1.0, [2.0]).make(JOBS, 4, make)
    SteeredAlongside(batches, "key", 1.0, [2.0]).make(JOBS, 3, make)  # as when the size was halved since
    assert make.asked == [[1.0], [1.0]]


def test_what_differs_in_more_than_alpha_is_not_taken() -> None:
    batches, make = SharedBatches([1.0, 2.0]), Maker()
    SteeredAlongside(batches, "three layers", 1.0, [2.0]).make(JOBS, 8, make)
    SteeredAlongside(batches, "four layers", 2.0, []).make(JOBS, 8, make)
    SteeredAlongside(batches, "three layers", 2.0, []).make(JOBS[:2], 8, make)
    assert make.asked == [[1.0, 2.0], [2.0], [2.0]]


def test_no_more_wait_than_may() -> None:
    batches, make = SharedBatches([1.0, 2.0, 3.0], most_waiting=4), Maker()
    SteeredAlongside(batches, "key", 1.0, [2.0, 3.0]).make(JOBS, 100, make)
    SteeredAlongside(batches, "other", 1.0, [2.0, 3.0]).make(JOBS, 100, make)
    assert make.asked == [[1.0, 2.0], [1.0]]
    assert batches.room() == 0
    SteeredAlongside(batches, "key", 2.0, [3.0]).make(JOBS, 100, make)
    assert batches.room() == 4


def test_without_the_memory_for_all_it_goes_on_alone() -> None:
    batches, make = SharedBatches([1.0, 2.0]), Maker(fits=4)
    alongside = SteeredAlongside(batches, "key", 1.0, [2.0])
    assert shown(alongside.make(JOBS, 8, make)) == expected(1.0)
    assert shown(alongside.make(JOBS, 8, make)) == expected(1.0)
    assert make.asked == [[1.0], [1.0]]


def test_a_single_alpha_that_does_not_fit_is_the_callers_to_halve() -> None:
    with pytest.raises(MemoryError):
        SteeredAlongside(SharedBatches([1.0]), "key", 1.0, []).make(JOBS, 8, Maker(fits=3))


def test_only_later_jobs_are_worked_for() -> None:
    assert SharedBatches([3.0, 1.0, 2.0]).after(1.0) == (2.0,)
    assert SharedBatches([3.0, 1.0]).after(7.0) == ()
