"""Where and how things compute: one word moves everything, models recommend, old names point to the new ones."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.errors import ConfigError, unknown_setting
from icm_pipeline.config.help_page import choices_of
from icm_pipeline.config.mistakes import explain
from icm_pipeline.config.models import ComputeConfig
from icm_pipeline.config.schema import Settings

Compose = Callable[..., Settings]


def devices(settings: Settings) -> set[str]:
    return {
        settings.compute.device, settings.labeler.device, settings.judge.device, settings.evaluate.clip.device,
        settings.probe.device, settings.pretrain.device,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "device"),
    [
        ((), "cpu"),
        (("compute.device=cuda:1",), "cuda:1"),
        (("compute=gpu",), "cuda"),
        (("experiment=sd15_gender",), "cuda"),
        (("experiment=sd15_gender", "compute=cpu"), "cpu"),
        (("experiment=sd15_gender_published", "compute.device=cuda:1"), "cuda:1"),
    ],
)
def test_one_word_moves_the_model_its_judges_probes_and_pretraining(
    compose_settings: Compose, words: tuple[str, ...], device: str
) -> None:
    assert devices(compose_settings(*words)) == {device}


def test_a_device_that_is_set_itself_stays(compose_settings: Compose) -> None:
    settings = compose_settings("compute.device=cuda", "labeler.device=cpu", "labeler@judge=age_gender")
    assert (settings.labeler.device, settings.judge.device, settings.probe.device) == ("cpu", "cpu", "cuda")


def test_a_model_recommends_its_precision_and_batch_unless_they_are_set(compose_settings: Compose) -> None:
    settings = compose_settings("experiment=sd15_gender")
    assert (settings.compute.dtype, settings.compute.batch_size) == ("float16", 8)
    settings = compose_settings("experiment=sd15_gender", "compute.dtype=bfloat16", "compute.batch_size=3")
    assert (settings.compute.dtype, settings.compute.batch_size) == ("bfloat16", 3)


@pytest.mark.parametrize(
    ("model", "choice"),
    [(model, "default") for model in choices_of("model")]
    + [(model, choice) for model in ("tiny", "sdxl") for choice in choices_of("compute") if choice != "default"],
)
def test_every_model_composes_and_small_and_large_ones_on_every_choice(model: str, choice: str) -> None:
    register_schema()
    words = [f"model={model}", f"compute={choice}", "stage=originals"] + ["model.path=/x"] * (model == "local")
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        settings = to_settings(compose("config", [*words, "method.last_step=null", "method.first_step=0"]))
    assert settings.compute.offload == ("model" if choice == "offload" else "none")


@pytest.mark.parametrize("word", ["model.device=cpu", "+model.batch_size=1"])
def test_a_setting_that_was_the_models_is_refused_with_its_new_name(compose_settings: Compose, word: str) -> None:
    with pytest.raises((ConfigError, HydraException)) as caught:
        compose_settings(word)
    name = word.partition(".")[2].partition("=")[0]
    assert f"there is no model.{name}: set compute.{name}." in explain(caught.value)


@pytest.mark.parametrize("name", [each.name for each in fields(ComputeConfig)])
def test_every_compute_setting_is_named_for_who_looks_for_it_in_the_model(name: str) -> None:
    assert unknown_setting(f"model.{name}", name, []).startswith(f"there is no model.{name}: set compute.{name}.")


@pytest.mark.parametrize("group", ["model", "compute", "labeler", "hydra/launcher"])
def test_a_misspelt_choice_lists_the_choices_and_nothing_else(group: str) -> None:
    with initialize_config_dir(str(conf_path()), version_base="1.3"), pytest.raises(HydraException) as caught:
        compose("config", [f"{group}=nonsens"], return_hydra_config=True)
    said = explain(caught.value).rstrip(".").partition("Choose from: ")[2].split(", ")
    assert set(choices_of(group)) - {"base"} <= set(said) <= {*choices_of(group), "basic"}


def test_a_judge_named_where_its_settings_are_is_told_how_it_is_chosen(tmp_path: Path) -> None:
    with initialize_config_dir(str(conf_path()), version_base="1.3"), pytest.raises(HydraException) as caught:
        compose("config", ["judge=fairface"])
    assert explain(caught.value).endswith("A file of conf/labeler is chosen by labeler@judge=fairface.")
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\njudge: fairface\n")
    folders = f"hydra.searchpath=[file://{conf_path()}]"
    with initialize_config_dir(str(tmp_path), version_base="1.3"), pytest.raises(HydraException) as caught:
        compose("mine", [folders])
    assert "Choose a file of conf/labeler in defaults: `- /labeler@judge: <name>`." in explain(caught.value)
