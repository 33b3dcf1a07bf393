"""A sweep's alphas in one batch: what fits, what waits for its job, what happens when the memory does not suffice."""

import pytest
from PIL import Image

from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import Sample
from icm_pipeline.generation.shared_batches import SharedBatches, SteeredAlongside

JOBS = [Job(f"{number:06d}", "a face", 0, number) for number in range(4)]


class Maker:
    """Makes pictures of one pixel that show at which alpha; fits: how many at once."""

    def __init__(self, fits: int = 100) -> None:
        self.asked: list[list[float]] = []
        self.failed = 0
        self._fits = fits

    def __call__(self, alphas: list[float], batch: list[Job]) -> list[list[Sample]]:
        if len(alphas) * len(batch) > self._fits:
            self.failed += 1
            raise MemoryError
        self.asked.append(alphas)
        return [[Sample(job, Image.new("RGB", (1, 1), (int(alpha), 0, 0))) for job in batch] for alpha in alphas]


def shown(samples: list[Sample]) -> list[tuple[str, int]]:
    return [(sample.job.image_id, sample.image.getpixel((0, 0))[0]) for sample in samples]


def expected(alpha: float, jobs: list[Job] = JOBS) -> list[tuple[str, int]]:
    return [(job.image_id, int(alpha)) for job in jobs]


def test_each_job_gets_its_own_pictures_and_a_batch_is_made_for_as_many_alphas_as_fit() -> None:
    batches, make = SharedBatches([1.0, 2.0, 3.0, 4.0]), Maker()
    for alpha in (1.0, 2.0, 3.0, 4.0):
        assert shown(SteeredAlongside(batches, "key", alpha, 13).make(JOBS, make)) == expected(alpha)
    assert make.asked == [[1.0, 2.0, 3.0], [4.0]]


@pytest.mark.parametrize("order", [[4.0, 1.0, 3.0, 2.0], [2.0, 2.0, 1.0, 3.0, 4.0]])
def test_who_shares_a_batch_depends_neither_on_the_order_nor_on_what_is_done(order: list[float]) -> None:
    for alpha, group in ((1.0, [1.0, 2.0]), (2.0, [1.0, 2.0]), (3.0, [3.0, 4.0]), (4.0, [3.0, 4.0])):
        make = Maker()
        assert shown(SteeredAlongside(SharedBatches(order), "key", alpha, 8).make(JOBS, make)) == expected(alpha)
        assert make.asked == [group]


def test_a_batch_that_leaves_no_room_takes_no_one_along() -> None:
    batches, make = SharedBatches([1.0, 2.0]), Maker()
    for batch_size in (4, 7, 3):  # less than the batch, as where it grows by itself
        SteeredAlongside(batches, "key", 1.0, batch_size).make(JOBS, make)
    assert make.asked == [[1.0]] * 3


def test_what_differs_in_more_than_alpha_is_not_taken() -> None:
    batches, make = SharedBatches([1.0, 2.0]), Maker()
    SteeredAlongside(batches, "three layers", 1.0, 8).make(JOBS, make)
    SteeredAlongside(batches, "four layers", 2.0, 8).make(JOBS, make)
    assert shown(SteeredAlongside(batches, "three layers", 2.0, 8).make(JOBS[:2], make)) == expected(2.0, JOBS[:2])
    assert make.asked == [[1.0, 2.0]] * 3


def test_an_alpha_of_another_sweep_is_made_alone() -> None:
    make = Maker()
    SteeredAlongside(SharedBatches([1.0, 2.0]), "key", 7.0, 8).make(JOBS, make)
    assert make.asked == [[7.0]]


def test_what_waits_longest_is_forgotten_and_made_again() -> None:
    batches, make = SharedBatches([1.0, 2.0], most_bytes=12), Maker()  # four pictures of one pixel
    for key in ("first", "second"):
        SteeredAlongside(batches, key, 1.0, 8).make(JOBS, make)
    assert shown(SteeredAlongside(batches, "second", 2.0, 8).make(JOBS, make)) == expected(2.0)
    assert len(make.asked) == 2
    assert shown(SteeredAlongside(batches, "first", 2.0, 8).make(JOBS, make)) == expected(2.0)
    assert len(make.asked) == 3


@pytest.mark.parametrize(("fits", "groups"), [(4, [[1], [2], [3], [4]]), (8, [[1, 2], [3, 4]]), (15, [[1, 2], [3, 4]])])
def test_what_does_not_fit_into_memory_is_halved_once_for_the_whole_sweep(fits: int, groups: list[list[float]]) -> None:
    batches, make = SharedBatches([1.0, 2.0, 3.0, 4.0]), Maker(fits)
    for alpha in (1.0, 2.0, 3.0, 4.0):
        assert shown(SteeredAlongside(batches, "key", alpha, 16).make(JOBS, make)) == expected(alpha)
    assert make.asked == groups
    assert make.failed == (2 if fits == 4 else 1)
    SteeredAlongside(batches, "a smaller model", 1.0, 16).make(JOBS[:1], make)
    assert make.asked[-1] == [1, 2, 3, 4]


def test_a_batch_that_does_not_fit_alone_is_the_callers_to_halve_and_then_stays_alone() -> None:
    batches, make = SharedBatches([1.0, 2.0]), Maker(fits=2)
    with pytest.raises(MemoryError):
        SteeredAlongside(batches, "key", 1.0, 4).make(JOBS, make)
    SteeredAlongside(batches, "key", 1.0, 4).make(JOBS[:2], make)
    assert (make.asked, make.failed) == ([[1.0]], 1)
