"""The method of docs/methods.md, one file and one YAML, joins the bench."""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
from hydra import compose, initialize_config_dir

from icm_pipeline import methods
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.schema import Settings
from icm_pipeline.methods.registry import SHIPPED, log_choice, own_file
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.keys import Keys
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


def test_a_method_of_ones_own_that_was_changed_is_made_again_and_a_shipped_one_has_the_key_it_had(
    tmp_path: Path, compose_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rescaled.py"
    file.write_text(blocks()["python"])
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    own = compose_settings(*TINY, "method.name=rescaled", "+method.params.factor=2.0")

    def keys(settings: Settings) -> dict[str, str]:
        return {stage: Keys(settings).key(stage) for stage in ("originals", "probe", "steer", "explicit")}

    before, shipped = keys(own), Keys(compose_settings(*TINY)).content("steer")
    file.write_text(blocks()["python"] + "\n# another\n")
    after = keys(own)
    assert {stage for stage in before if before[stage] != after[stage]} == {"steer", "explicit"}
    assert "code" not in shipped and "code" in Keys(own).content("steer")


def test_every_method_in_the_package_is_known_as_shipped() -> None:
    there = {module.name for module in iter_modules([str(Path(methods.__file__).parent)])}
    assert {name for name in there if hasattr(import_module(f"{methods.__name__}.{name}"), "METHOD")} == SHIPPED
    assert own_file("icm") is None


def test_a_yaml_without_a_name_says_which_method_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "nameless.py").write_text(blocks()["python"])
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    with caplog.at_level("INFO"):
        log_choice("nameless", "icm")
        log_choice("look", "icm")
        log_choice("published/uce", "uce")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "nameless.yaml has no `name:` of its own" in caplog.text and "add `name: nameless`" in caplog.text
    assert "method=look is method.name=icm with settings of its own" in caplog.text
