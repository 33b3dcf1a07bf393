"""Without a page the pictures and the vectors of a setting are written, and a command line says what was opened."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icm_pipeline.cli.job import run_job
from icm_pipeline.cli.running import HydraJob, RunningSweep
from icm_pipeline.config.schema import Settings
from icm_pipeline.explore.opening import explore, words_to_open
from icm_pipeline.images.folders import list_images
from icm_pipeline.methods.vectors import load_vectors
from tests.explore.conftest import SMALL


def test_words_that_open_it_are_kept_and_those_of_the_setting_are_not() -> None:
    words = ["stage=explore", "model=tiny", "explore.of='x y'", "explore.prompt=a face", "explore.alpha=3", "alpha=2"]
    assert words_to_open(words) == ("model=tiny", "x y", "alpha=2")
    assert words_to_open(["explore.of='x=y'"]) == ("of='x=y'",)


def test_pictures_and_vectors_of_a_setting_are_saved_and_the_same_again(
    settings_with: Callable[..., Settings], tmp_path: Path
) -> None:
    asked = ("explore.num_images=2", "explore.image_seed=5", "explore.option=man", "explore.alpha=3")
    paths = {}
    for name in ("once", "again"):
        settings = settings_with(*SMALL, *asked, f"explore.save={tmp_path / name}")
        paths[name] = explore(settings, [])
    assert [path.name for path in paths["once"]] == [
        "original-5.png", "steered-5.png", "difference-5.png", "original-6.png", "steered-6.png", "difference-6.png",
        "images.csv", "vectors.safetensors",
    ]  # fmt: skip
    assert [path.read_bytes() for path in paths["once"]] == [path.read_bytes() for path in paths["again"]]
    before, after = (np.asarray(Image.open(tmp_path / "once" / f"{name}-5.png")) for name in ("original", "steered"))
    assert (before != after).any()
    strength = load_vectors(tmp_path / "once" / "vectors.safetensors").strength
    assert strength is not None
    assert strength.alpha == 3.0


def test_differences_are_no_images_of_a_saved_folder(settings_with: Callable[..., Settings], tmp_path: Path) -> None:
    explore(settings_with(*SMALL, "explore.num_images=1", "explore.option=man", f"explore.save={tmp_path}"), [])
    table = list_images(settings_with(*SMALL, f"images={tmp_path}"), "images")
    assert [(row.image_id, row.seed, row.option) for row in table.rows] == [
        ("original-0", 0, ""), ("steered-0", 0, "man"),
    ]  # fmt: skip
    assert table.left_out == ["difference-0.png"]


def test_a_page_without_the_extra_is_refused_with_its_name(
    settings_with: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icm_pipeline.labelers.base.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"icm_pipeline\[explore\]"):
        explore(settings_with(*SMALL), [])


def test_a_job_of_stage_explore_tells_the_files_that_it_saved(
    settings_with: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = settings_with(*SMALL, "explore.num_images=1", f"explore.save={tmp_path / 'saved'}")
    outcome = run_job(settings, HydraJob(tmp_path, [], [], None), RunningSweep())
    assert [path.name for path in outcome.files] == [
        "original-0.png", "steered-0.png", "difference-0.png", "images.csv", "vectors.safetensors",
    ]  # fmt: skip
    assert all(path.is_file() for path in outcome.files)
