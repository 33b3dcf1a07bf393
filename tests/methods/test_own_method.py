"""The method of docs/methods.md, one file and one YAML, joins the bench."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from icm_pipeline import methods
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.results.bench import StrengthChoice
from icm_pipeline.results.steering import Steering
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.settings import TINY

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
SIZES = ("tuning_prompts=1", "tuning_images=2", "named_prompts=2", "named_images=1")


def blocks() -> dict[str, str]:
    """Return the page's example by language."""
    return dict(re.findall(r"```(python|yaml)\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL))


def test_the_example_is_about_ten_lines() -> None:
    found = blocks()
    assert sum(bool(line.strip()) for line in found["python"].splitlines()) <= 10
    assert len(found["yaml"].splitlines()) <= 10


def test_the_example_is_benched_with_a_strength_of_its_own(
    tmp_path: Path, models: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, conf = blocks(), tmp_path / "conf" / "method"
    conf.mkdir(parents=True)
    (tmp_path / "scaled.py").write_text(found["python"])
    (conf / "scaled.yaml").write_text(found["yaml"])
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    words = [
        *TINY, f"hydra.searchpath=[file://{conf.parent}]", "experiment=bench", "method=scaled", "model.num_steps=2",
        f"paths.outputs={tmp_path / 'outputs'}", *(f"bench.sizes.full.{size}" for size in SIZES),
    ]  # fmt: skip
    register_schema()
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        settings = to_settings(compose("config", overrides=words))
    check_stage(settings)
    run = Pipeline(settings, [], NoTracker(), models=models)
    chosen, steered = run.run("strength"), run.run("steer")
    assert chosen is not None and steered is not None
    assert [each.value for each in StrengthChoice.read(chosen).tried] == [1.5, 2.0]
    assert Steering.read(steered).params == {"factor": StrengthChoice.read(chosen).value}
