"""Tracking: what is logged lands in W&B's offline run, and a tracker nobody used leaves nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from icm_pipeline.tracking import NoTracker, WandbTracker


def make(folder: Path) -> WandbTracker:
    return WandbTracker(
        mode="offline",
        project="icm_pipeline",
        entity=None,
        group="tiny-gender",
        name="evaluate-tiny-gender",
        tags=["tiny", "gender"],
        folder=folder,
        config={"alpha": 1.5, "layers": {"k": 4}},
    )


def media(folder: Path, name: str) -> Path:
    (path,) = folder.glob(f"wandb/offline-run-*/files/media/{name}")
    return path


def read_back(folder: Path) -> Any:
    """Return what `wandb leet inspect` reads from the only offline run in a folder."""
    (run,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--summary", "--json", run]
    done = subprocess.run(  # a separate program, so nothing of the test can leak into what it reads
        [str(part) for part in command], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Log one of everything, close, and return the folder."""
    folder = tmp_path_factory.mktemp("tracker")
    picture = folder / "grid.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    tracker = make(folder / "run")
    tracker.metrics({"fd/mean": 0.125})
    tracker.table("probe/scores", ["layer", "accuracy"], [["mid.attn1", 0.875], ["up.attn1", 0.5]])
    tracker.image("report/grid", picture)
    tracker.close()
    return folder / "run"


@pytest.fixture(scope="module")
def inspected(run_folder: Path) -> Any:
    return read_back(run_folder)


def test_scalars_land_in_the_run(inspected: Any) -> None:
    assert inspected["summary"]["fd/mean"] == 0.125


def test_a_table_lands_in_the_run_with_its_rows(inspected: Any, run_folder: Path) -> None:
    assert (inspected["summary"]["probe/scores"]["nrows"], inspected["summary"]["probe/scores"]["ncols"]) == (2, 2)
    table = json.loads(media(run_folder, "table/probe/*.json").read_text())
    assert table == {"columns": ["layer", "accuracy"], "data": [["mid.attn1", 0.875], ["up.attn1", 0.5]]}


def test_a_picture_lands_in_the_run_as_it_was(inspected: Any, run_folder: Path) -> None:
    assert inspected["summary"]["report/grid"]["_type"] == "image-file"
    with Image.open(media(run_folder, "images/report/*.png")) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_the_run_carries_its_name_tags_and_configuration(inspected: Any) -> None:
    assert (inspected["name"], inspected["project"]) == ("evaluate-tiny-gender", "icm_pipeline")
    assert inspected["tags"] == ["tiny", "gender"]
    assert inspected["config"] == {"alpha": 1.5, "layers": {"k": 4}}


def test_closing_finishes_the_run(inspected: Any) -> None:
    assert (inspected["state"], inspected["exit_code"]) == ("finished", 0)


def test_a_tracker_nobody_used_leaves_no_run(tmp_path: Path) -> None:
    make(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()


def test_no_tracker_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = NoTracker()
    tracker.metrics({"fd/mean": 0.1})
    tracker.table("probe/scores", ["layer"], [["mid.attn1"]])
    tracker.image("report/grid", tmp_path / "missing.png")
    tracker.close()
    assert not list(tmp_path.iterdir())
