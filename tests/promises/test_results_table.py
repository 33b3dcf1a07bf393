"""`make results` prints the experiments it ran, and nothing else that lies in the outputs folder."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from hydra import compose, initialize_config_dir

from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.results import evaluation, steering, write_artifact

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
    alpha = 9.0 if "seed=2" in words else 7.0
    evaluation(model=settings.model.name, steering=steering(alpha=alpha)).write(folder)
    write_artifact(folder, "evaluate", pipeline.keys.key("evaluate"))


def test_only_the_experiments_as_they_are_shipped_are_rows(
    tmp_path: Path, results_table: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(tmp_path, "experiment=gender")
    evaluate(tmp_path, "experiment=gender", "seed=2")
    evaluate(tmp_path, "experiment=worst_k", "model.num_steps=10")
    _, *rows = results_table.ways_of_steering(tmp_path)
    assert [row[:2] for row in rows] == [("gender", "best 2 self-attention, alpha 7")]
    assert "experiment=worst_k was not evaluated" in capsys.readouterr().err


def test_a_model_whose_probes_are_gone_has_a_row(tmp_path: Path, results_table: ModuleType) -> None:
    evaluate(tmp_path, "experiment=architectures", "model=tiny_flux")
    evaluate(tmp_path, "experiment=architectures", "model=tiny_flux", "seed=2")
    _, *rows = results_table.architectures(tmp_path)
    assert [row[:5] for row in rows] == [("tiny_flux", "?", "?", "?", "best 2 self-attention, alpha 7")]


def test_the_rows_are_those_that_make_results_runs(results_table: ModuleType) -> None:
    found = re.search(r"^ROWS := (.*)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    assert set(found[1].split(",")) == set(results_table.EXPERIMENTS)
