"""Arms of an experiment have the evaluation images in turns, evenly over prompts, options and images."""

from collections import Counter
from collections.abc import Callable

import pytest

from icm_pipeline.config.schema import Settings
from icm_pipeline.stages.rotation import Rotation, rotation

Compose = Callable[..., Settings]
WORDS = ("evaluate.images_per_prompt=24",)


def strata(images: Rotation) -> Counter[tuple[int, int]]:
    return Counter((job.prompt_index, option) for job, option in zip(images.jobs, images.options, strict=True))


@pytest.mark.parametrize("first", [0, 24, 3, 90])
def test_any_stretch_has_its_share_of_every_prompt_and_option(settings_with: Compose, first: int) -> None:
    images = rotation(settings_with(*WORDS, "method.assignment=quota"))
    assert set(strata(images.stretch(first, 24)).values()) == {3}


def test_unequal_options_are_spread_as_evenly_as_they_can_be(settings_with: Compose) -> None:
    images = rotation(settings_with(*WORDS, "method.assignment=image", "method.target_shares=[0.8,0.2]"))
    whole = strata(images)
    for first in range(0, 96, 12):
        here = strata(images.stretch(first, 12))
        assert all(abs(here[stratum] - count / 8) <= 1 for stratum, count in whole.items())


def test_arms_one_after_the_other_have_every_image_equally_often(settings_with: Compose) -> None:
    images = rotation(settings_with(*WORDS))
    times = Counter(job.image_id for arm in range(10) for job in images.stretch(arm * 24, 24).jobs)
    assert len(times) == 96 and max(times.values()) - min(times.values()) <= 1


def test_no_arm_has_an_image_twice_however_many_it_asks_for(settings_with: Compose) -> None:
    ids = [job.image_id for job in rotation(settings_with(*WORDS)).stretch(50, 400).jobs]
    assert len(ids) == len(set(ids)) == 96


def test_the_order_is_the_seeds_and_no_other(settings_with: Compose) -> None:
    orders = [[job.prompt_index for job in rotation(settings_with(*WORDS, seed)).jobs] for seed in ("seed=1",) * 2]
    assert orders[0] == orders[1]
    assert orders[0] != [job.prompt_index for job in rotation(settings_with(*WORDS, "seed=2")).jobs]
