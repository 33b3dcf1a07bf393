"""`make results` prints the experiments it ran, and nothing else that lies in the outputs folder."""

import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from hydra import compose, initialize_config_dir

from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.schema import conf_path, register_schema
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.store.files import hash_file
from icm_pipeline.tracking.base import NoTracker
from tests.report.test_comparison import USUAL

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results_table() -> ModuleType:
    spec = spec_from_file_location("results_table", TOP / "benchmarks" / "results_table.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def evaluate(outputs: Path, *words: str) -> None:
    """Leave an evaluation under the key of these words, with alpha 9 if a seed is among them."""
    register_schema()
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        settings = to_settings(compose("config", overrides=[*words, f"paths.outputs={outputs}"]))
    pipeline = Pipeline(settings, [], NoTracker())
    folder = pipeline.keys.folder("evaluate")
    folder.mkdir(parents=True)
    fd = {"mean": 0.2, "interval_95": [0.1, 0.3]}
    steering = {**USUAL, "alpha": 9.0 if "seed=1" in words else 7.0}
    metrics = {
        "model": settings.model.name, "attribute": "gender", "steering": steering, "fd": fd, "fd_original": fd,
        "obeyed": 0.9, "clip_i": 0.9, "kept": {"age": 0.8},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    size, sha256 = (folder / "metrics.json").stat().st_size, hash_file(folder / "metrics.json")
    manifest = {"key": pipeline.keys.key("evaluate"), "stage": "evaluate", "parents": {}, "settings": {}}
    (folder / "manifest.json").write_text(
        json.dumps({**manifest, "files": {"metrics.json": {"size": size, "sha256": sha256}}})
    )


def test_only_the_experiments_as_they_are_shipped_are_rows(
    tmp_path: Path, results_table: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(tmp_path, "experiment=gender")
    evaluate(tmp_path, "experiment=gender", "seed=1")
    evaluate(tmp_path, "experiment=worst_k", "model.num_steps=10")
    _, *rows = results_table.ways_of_steering(tmp_path)
    assert [row[:2] for row in rows] == [("gender", "best 2 self-attention, alpha 7")]
    assert "experiment=worst_k was not evaluated" in capsys.readouterr().err


def test_a_model_whose_probes_are_gone_has_a_row(tmp_path: Path, results_table: ModuleType) -> None:
    evaluate(tmp_path, "model=tiny_flux")
    evaluate(tmp_path, "model=tiny_flux", "seed=1")
    _, *rows = results_table.architectures(tmp_path)
    assert [row[:5] for row in rows] == [("tiny_flux", "?", "?", "?", "best 2 self-attention, alpha 7")]


def test_the_rows_are_those_that_make_results_runs(results_table: ModuleType) -> None:
    found = re.search(r"^ROWS := (.*)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    assert set(found[1].split(",")) == set(results_table.EXPERIMENTS)
