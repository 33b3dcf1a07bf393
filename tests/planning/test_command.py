"""`stage=plan` on the command line: it tells, exits with 0 and leaves nothing but its log."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from icm_pipeline.cli import callbacks
from icm_pipeline.cli.running import RunningSweep, this_command
from tests.helpers.command_line import run


def test_a_sweep_is_planned_as_a_whole_and_nothing_is_made(tmp_path: Path) -> None:
    result = run(tmp_path / "outputs", "stage=plan", "alpha=2,3", "layers.k=4", "--multirun")
    assert result.returncode == 0, result.stderr
    assert "Plan of 2 jobs" in result.stdout
    assert "2 to make" in result.stdout
    assert "generate, label, probe, select, originals" in result.stdout
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"icm.log", "multirun.yaml", "config.yaml", "hydra.yaml", "overrides.yaml"}


@pytest.fixture
def multirun(tmp_path: Path) -> Iterator[Any]:
    """Give the configuration of a planning multirun on a cluster."""
    before = this_command.set(RunningSweep())
    yield OmegaConf.create(
        {
            "stage": "plan",
            "hydra": {
                "sweep": {"dir": str(tmp_path)},
                "overrides": {"task": []},
                "sweeper": {"_target_": callbacks.GRID},
                "launcher": {"_target_": "a.cluster.Launcher", "partition": "gpu"},
            },
        }
    )
    this_command.reset(before)


def test_a_plan_is_made_here_and_not_on_the_cluster(multirun: Any) -> None:
    callbacks.NoteSweep().on_multirun_start(multirun)
    assert multirun.hydra.launcher == {"_target_": callbacks.HERE}


def test_other_stages_keep_their_launcher(multirun: Any) -> None:
    multirun.stage = "all"
    callbacks.NoteSweep().on_multirun_start(multirun)
    assert multirun.hydra.launcher.partition == "gpu"


def test_a_search_is_not_planned(multirun: Any) -> None:
    multirun.hydra.sweeper._target_ = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
    with pytest.raises(SystemExit, match=r"hydra.mode=RUN"):
        callbacks.NoteSweep().on_multirun_start(multirun)
