"""Optuna's search on the embedded model: two trials, their front, and the ranges it draws from."""

import json
from pathlib import Path

import pytest
import yaml

from tests.command_line import run

pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def needs_optuna() -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs icm_pipeline[optuna]")


def test_a_search_tries_values_in_range_and_prints_the_front(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    ranges = ("alpha=interval(2.0,4.0)", "layers.k=range(2,6)", "method.first_step=range(0,3)")
    words = ("experiment=search", "hydra.sweeper.n_trials=2", *ranges, f"hydra.sweep.dir={sweep}", "--multirun")
    result = run(tmp_path / "outputs", *words)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "on the Pareto front" in result.stdout
    jobs = [json.loads((sweep / name / "result.json").read_text()) for name in ("0", "1")]
    drawn = [dict(word.split("=", 1) for word in job["overrides"]) for job in jobs]
    assert all(2 <= float(words["alpha"]) <= 4 for words in drawn)
    assert all(int(words["layers.k"]) in range(2, 6) for words in drawn)
    found = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert all(len(solution["values"]) == 2 for solution in found["solutions"])
