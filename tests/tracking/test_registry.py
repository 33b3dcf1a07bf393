"""The tracker that the configuration asks for, and what a W&B run of a sweep is filed under."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from icm_pipeline.config.schema import Settings
from icm_pipeline.tracking.base import NoTracker
from icm_pipeline.tracking.files import CsvTracker, TensorBoardTracker
from icm_pipeline.tracking.registry import make_tracker
from icm_pipeline.tracking.wandb import WandbTracker

Compose = Callable[..., Settings]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["tracker.name=wandb", "tracker.mode=offline"], WandbTracker),
        (["tracker.name=wandb", "tracker.mode=disabled"], NoTracker),
        (["tracker.name=csv"], CsvTracker),
        (["tracker.name=none"], NoTracker),
    ],
)
def test_the_configured_tracker_is_made(settings_with: Compose, tmp_path: Path, words: list[str], kind: type) -> None:
    assert type(make_tracker(settings_with(*words), tmp_path, None)) is kind


def test_the_environment_of_wandb_beats_our_defaults_and_our_settings_beat_it(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = {
        "MODE": "disabled", "PROJECT": "theirs", "ENTITY": "team", "RUN_GROUP": "night", "DIR": str(tmp_path / "runs"),
        "TAGS": "a,b", "NAME": "first", "JOB_TYPE": "trial",
    }  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    tracker = compose_settings().tracker
    assert (tracker.mode, tracker.project, tracker.entity, tracker.group) == ("disabled", "theirs", "team", "night")
    assert compose_settings("tracker=csv").tracker.mode == "offline"
    words = ("tracker.mode=offline", "tracker.project=mine", "tracker.group=null")
    made = make_tracker(compose_settings(*words), tmp_path / "job", None)
    options = vars(made)["_options"]
    del options["config"], options["reinit"]
    assert options == {
        "mode": "offline", "project": "mine", "entity": "team", "group": "tiny-gender", "dir": str(tmp_path / "runs"),
        "tags": ["tiny", "gender", "all", "a", "b"], "name": "first", "job_type": "trial",
    }  # fmt: skip


def test_tensorboard_is_made_where_it_is_installed(settings_with: Compose, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tracker = make_tracker(settings_with("tracker.name=tensorboard"), tmp_path, None)
    assert isinstance(tracker, TensorBoardTracker)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["stage=evaluate"], ["evaluate-tiny-gender-3", '"evaluate"']),
        (["stage=report", "sweep=x"], ["sweep-report-tiny-gender", '"sweep-report"']),
    ],
)
def test_a_run_of_a_sweep_is_grouped_under_the_sweep(
    settings_with: Compose, tmp_path: Path, words: list[str], found: list[str]
) -> None:
    folder = tmp_path / "3"
    tracker = make_tracker(settings_with("tracker.mode=offline", *words), folder, Path("x/2026-01-31/20-15-00"))
    tracker.metrics({"fd/mean": 0.5})
    tracker.close()
    (run,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(run)]
    records = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert '"2026-01-31_20-15-00"' in records
    assert all(word in records for word in found)
