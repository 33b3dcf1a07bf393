"""Intervals of images that stand alone in their stratum, or are all there is of their prompt."""

import numpy as np
import pytest

from icm_pipeline.metrics.intervals import bootstrap_interval, paired_change

PROMPT = "a face of a nurse"


def interval(shown: list[list[float]], strata: list[int] | None) -> tuple[float, float]:
    own = None if strata is None else np.array(strata)
    return bootstrap_interval(np.array(shown), [PROMPT] * len(shown), 400, np.random.default_rng(0), strata=own)


@pytest.mark.parametrize("strata", [[0, 1], [0, 1, 1, 1], [0, 1, 2, 2]])
def test_an_interval_does_not_end_at_the_figure_where_a_stratum_has_one_image(strata: list[int]) -> None:
    shown = [[0.9, 0.1], *[[0.6, 0.4]] * (len(strata) - 1)]
    figure = float(np.linalg.norm(np.mean(shown, axis=0) - 0.5))
    low, high = interval(shown, strata)
    assert low < figure - 0.01 and high > figure + 0.01


def test_strata_of_two_or_more_images_are_as_they_were() -> None:
    first = np.linspace(0.02, 0.98, 20) ** 2
    found = interval(np.stack([first, 1 - first], axis=1).tolist(), [0] * 10 + [1] * 10)
    assert found == pytest.approx((0.13228084118169114, 0.4698618874299227), abs=1e-9)  # before single ones were pooled


def test_of_a_prompt_of_one_image_any_fd_is_inside_and_of_others_as_much_less() -> None:
    assert interval([[0.9, 0.1]], None) == pytest.approx((0.0, np.sqrt(0.5)))
    prompts = [PROMPT, *["a face of a doctor"] * 3]
    shown = np.array([[1.0, 0.0], *[[0.5, 0.5]] * 3])
    low, high = bootstrap_interval(shown, prompts, 50, np.random.default_rng(0))
    assert (low, high) == pytest.approx((0.0, np.sqrt(0.5) / 2))


def test_a_change_of_single_images_is_not_certain() -> None:
    before, after = np.array([[1.0, 0.0], [0.9, 0.1]]), np.array([[0.8, 0.2], [0.4, 0.6]])
    change, (low, high) = paired_change(before, after, [PROMPT] * 2, 400, np.random.default_rng(0), strata=np.arange(2))
    assert low < change - 0.01 and high > change + 0.01
