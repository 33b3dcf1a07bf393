"""A model's file says what world it draws, and who judges it, on what and by which texts follows from that."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from icm_pipeline.cli.errors import explain
from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.help_page import GROUPS, choices_of
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import probe_jobs
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.table import stages_of
from icm_pipeline.planning.plan import Plan
from tests.helpers.command_line import run_words

Compose = Callable[..., Settings]
MODELS = choices_of("model")
PORTRAITS = [name for name in MODELS if name.startswith("tiny")]
NEEDED = {"local": ["model.path=/somewhere"]}


@pytest.fixture(scope="module")
def composed() -> Iterator[Compose]:
    """Give a function from words to settings, as the command line makes them, checked for `stage=probe`."""
    register_schema()

    @cache
    def settings_of(*words: str) -> Settings:
        settings = to_settings(compose("config", overrides=["stage=probe", *words]))
        check_stage(settings)
        return settings

    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        yield settings_of


def judged_by(settings: Settings) -> tuple[str, str, str]:
    return settings.labeler.model, settings.judge.model, settings.evaluate.clip.model


@pytest.mark.parametrize("model", MODELS)
def test_a_model_alone_brings_judges_prompts_and_texts_of_its_world(composed: Compose, model: str) -> None:
    settings = composed(f"model={model}", *NEEDED.get(model, []))
    gender, drift = settings.attribute.options["woman"], list(settings.evaluate.drift)
    if model in PORTRAITS:
        assert judged_by(settings) == ("icm-tiny-clip", "attribute-classifier", "icm-tiny-clip")
        assert (len(probe_jobs(settings)), settings.evaluate.images_per_prompt) == (560, 24)
        assert gender == ["a photo of a woman", "a portrait of a lady"]
        assert drift == ["gender", "age", "skin_tone", "background", "glasses"]
    else:
        assert judged_by(settings) == ("ViT-L-14-quickgelu",) * 3
        assert (len(probe_jobs(settings)), settings.evaluate.images_per_prompt) == (500, 500)
        assert gender == ["a photo of a woman", "a photo of a female person"]
        assert drift == ["gender", "age", "race"]
    recommended = yaml.safe_load((conf_path() / "model" / f"{model}.yaml").read_text()).get("steering", {})
    assert settings.layers.k == recommended.get("k", 6)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_planned(composed: Compose, model: str) -> None:
    settings, plan = composed(f"model={model}", *NEEDED.get(model, [])), Plan()
    if model == "local":
        with pytest.raises((ValueError, OSError), match=r"model\.path=/somewhere"):
            plan.add(settings, [])
    else:
        assert plan.add(settings, []).makes == stages_of(settings)


@pytest.mark.parametrize("model", ["tiny_flux", "sdxl", "local"])
def test_the_configuration_is_printed_and_planned_by_the_command(model: str, tmp_path: Path) -> None:
    words = [f"model={model}", *NEEDED.get(model, [])]
    printed = run_words([*words, "--cfg", "job"], tmp_path)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert yaml.safe_load(printed.stdout)["model"]["name"] == model
    planned = run_words(["stage=plan", *words], tmp_path)
    if model == "local":
        assert "model.path=/somewhere" in planned.stdout + planned.stderr
    else:
        assert (planned.returncode, planned.stderr) == (0, "")
        assert f"Plan of gender on {model}" in planned.stdout


@pytest.mark.parametrize(("model", "ages"), [("tiny", 2), ("sdxl", 3)])
def test_age_has_the_groups_that_the_world_can_show(composed: Compose, model: str, ages: int) -> None:
    assert len(composed(f"model={model}", "attribute=age").attribute.options) == ages
    assert len(composed(f"model={model}", "attribute=age_3").attribute.options) == 3


def test_what_is_said_beside_the_model_stands(composed: Compose) -> None:
    words = ("labeler@judge=fairface", "evaluate=concepts", "attribute=pose", "generate.images_per_prompt=3")
    for settings in (composed("model=sdxl", *words), composed(*words, "model=sdxl")):
        assert (settings.labeler.kind, settings.judge.kind, settings.attribute.name) == ("clip", "fairface", "pose")
        assert (settings.evaluate.drift, settings.generate.images_per_prompt) == ({}, 3)
    assert composed("model=tiny", "labeler=clip", "attribute=gender_photo").labeler.model == "ViT-L-14-quickgelu"


def test_an_experiment_takes_the_world_of_the_model_beside_it(composed: Compose) -> None:
    assert composed("experiment=age", "model=sdxl").labeler.model == "ViT-L-14-quickgelu"
    assert composed("experiment=sd15_gender", "model=tiny").judge.model == "attribute-classifier"


def test_a_folder_of_ones_own_draws_photographs_unless_it_is_said_to_draw_portraits(composed: Compose) -> None:
    folder = "model.path=/mine"
    judges = [f"{name}.path=/mine" for name in ("labeler", "judge", "evaluate.clip")]
    assert composed("model=local", folder).attribute.options["man"][1] == "a photo of a male person"
    portraits = composed("model=local", folder, "world=portraits", *judges)
    assert judged_by(portraits) == ("icm-tiny-clip", "attribute-classifier", "icm-tiny-clip")


@pytest.mark.parametrize("word", ["labeler=tiny_clip", "labeler@judge=tiny", "evaluate=portraits", "world=portraits"])
def test_judges_of_another_world_are_refused_where_they_are_asked_for(composed: Compose, word: str) -> None:
    with pytest.raises(ConfigError, match="made for the embedded model's portraits"):
        composed("model=sdxl", word)


@pytest.mark.parametrize("group", [*GROUPS, "labeler@judge"])
def test_a_misspelt_choice_is_answered_with_the_groups_choices_alone(composed: Compose, group: str) -> None:
    with pytest.raises(HydraException) as caught:
        composed(f"{'+' if group == 'window' else ''}{group}=sdx1")
    listed = explain(caught.value).partition("Choose from: ")[2].removesuffix(".").split(", ")
    assert listed
    assert set(choices_of(group.partition("@")[0])) <= set(listed)
    assert all(name.isidentifier() for name in listed)
