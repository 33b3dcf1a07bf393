"""Optuna's search on the embedded model: two trials, their front, and the ranges it draws from."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.command_line import SMALL

pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def needs_optuna() -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs icm_pipeline[optuna]")


def test_a_search_tries_values_in_range_and_prints_the_front(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    ranges = ("alpha=interval(2.0,4.0)", "layers.k=range(2,5)", "method.first_step=range(0,3)")
    searched = ("alpha=", "layers.k=", "method.first_step=")
    small = [word for word in SMALL if not word.startswith(searched)]  # a value that is given is not searched for
    words = ("experiment=search", "hydra.sweeper.n_trials=2", *ranges, f"hydra.sweep.dir={sweep}", "--multirun")
    command = [sys.executable, "-m", "icm_pipeline", f"paths.outputs={tmp_path / 'outputs'}", *small, *words]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "on the Pareto front" in result.stdout
    jobs = [json.loads((sweep / name / "result.json").read_text()) for name in ("0", "1")]
    drawn = [dict(word.split("=", 1) for word in job["overrides"]) for job in jobs]
    assert all(2 <= float(words["alpha"]) <= 4 for words in drawn)
    assert all(2 <= int(words["layers.k"]) <= 5 for words in drawn)  # Optuna takes the end of a range as well
    found = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert all(len(solution["values"]) == 2 for solution in found["solutions"])
