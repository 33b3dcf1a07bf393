"""FD of one run less FD of another: images pair by id, whatever their order, and what has no partner is left out."""

import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.comparing import fd_less
from icm_pipeline.metrics.intervals import paired_change
from icm_pipeline.metrics.least_change import Choosing
from icm_pipeline.store.artifacts import Artifact
from tests.helpers.results import PROMPTS, as_artifact, steering

Compose = Callable[..., Settings]
IDS = [f"{number:02d}" for number in range(40)]
WAYS = (steering(assignment="image"),) * 2


def shown(image_id: str, far: float) -> float:
    """Return P(woman) of an image: a number of its own, the higher the further it was steered."""
    return min(1.0, np.random.default_rng(int(image_id)).uniform(0, 0.6) + far)


def evaluated(folder: Path, ids: Sequence[str], far: float, was: Mapping[str, str] | None = None) -> Artifact:
    folder.mkdir()
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "steered_to", "steered_woman", "steered_man", *(["was"] if was else [])])
        for image_id in ids:
            woman = shown(image_id, far)
            before = [was[image_id]] if was else []
            writer.writerow([image_id, PROMPTS[int(image_id) % 2], "woman", woman, 1 - woman, *before])
    return as_artifact(folder)


@pytest.fixture
def settings(settings_with: Compose) -> Settings:
    return settings_with("evaluate.bootstrap=200")


def expected(settings: Settings, ids: Sequence[str]) -> Any:
    sides = (np.array([[shown(one, far), 1 - shown(one, far)] for one in ids]) for far in (0.1, 0.3))
    prompts = [PROMPTS[int(image_id) % 2] for image_id in ids]
    return paired_change(*sides, prompts, 200, np.random.default_rng(settings.seed))[1]


def test_runs_whose_tables_differ_in_order_pair_by_id(settings: Settings, tmp_path: Path) -> None:
    this = evaluated(tmp_path / "this", IDS, 0.1)
    for name, order in (("same", IDS), ("turned", IDS[::-1])):
        assert fd_less(settings, this, evaluated(tmp_path / name, order, 0.3), WAYS) == expected(settings, IDS)


def test_an_image_that_one_run_lacks_is_left_out_and_told(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    this, other = evaluated(tmp_path / "this", IDS[1:], 0.1), evaluated(tmp_path / "other", IDS[:-1], 0.3)
    with caplog.at_level(logging.WARNING):
        assert fd_less(settings, this, other, WAYS) == expected(settings, IDS[1:-1])
    assert "other beside this run: left out 2 images that only one of the two has: 00, 39" in caplog.text


def test_runs_without_an_image_in_common_or_towards_other_shares_are_not_compared(
    settings: Settings, tmp_path: Path
) -> None:
    this, other = evaluated(tmp_path / "this", IDS[:20], 0.1), evaluated(tmp_path / "other", IDS[20:], 0.3)
    assert fd_less(settings, this, other, WAYS) is None
    apart = (steering(), steering(target_shares=[0.7, 0.3]))
    assert fd_less(settings, this, evaluated(tmp_path / "same", IDS[:20], 0.3), apart) is None


def test_ways_that_change_the_same_images_are_compared_within_what_was_changed(
    settings: Settings, tmp_path: Path
) -> None:
    was = {image_id: "man" if int(image_id) % 3 else "woman" for image_id in IDS}
    this, other = (evaluated(tmp_path / str(far), IDS, far, was) for far in (0.1, 0.3))
    ways = (steering(assignment="least_change"),) * 2
    before, after = (np.array([[shown(one, far), 1 - shown(one, far)] for one in IDS]) for far in (0.1, 0.3))
    labels = np.array([0 if was[image_id] == "woman" else -1 for image_id in IDS])  # no image is to show a man
    prompts, rng = [PROMPTS[int(image_id) % 2] for image_id in IDS], np.random.default_rng(settings.seed)
    wanted = paired_change(before, after, prompts, 200, rng, strata=np.zeros(40, np.int64), by=Choosing(labels))[1]
    assert fd_less(settings, this, other, ways) == wanted != expected(settings, IDS)
    unlike = evaluated(tmp_path / "unlike", IDS, 0.3, was | {IDS[0]: "man"})
    assert fd_less(settings, this, unlike, ways) == expected(settings, IDS)
