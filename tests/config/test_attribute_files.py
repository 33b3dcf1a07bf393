"""Attributes are YAML alone: every shipped one composes, one's own needs a dozen lines, a wrong line is explained."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.mistakes import explain
from icm_pipeline.config.schema import Settings

Compose = Callable[..., Settings]
OWN = """name: hat
options:
  cap: [a photo of a person in a cap]
  hood: [a photo of a person in a hood]
probe_templates: ["a photo of a {}"]
probe_subjects: [person]
evaluation_prompts: [a photo of a singer]
"""
CONCEPTS = ["flower_colour", "beard", "material", "painter_style", "us_president", "cartoon_character", "pose"]


def composed(folder: Path, text: str, *words: str) -> Settings:
    """Compose with an attribute file of one's own in a folder beside the package's."""
    register_schema()
    (folder / "attribute").mkdir()
    (folder / "attribute" / "hat.yaml").write_text(text)
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        return to_settings(
            compose("config", overrides=[f"hydra.searchpath=[file://{folder}]", "attribute=hat", *words])
        )


def test_an_attribute_of_ones_own_is_a_dozen_lines_beside_the_package(tmp_path: Path) -> None:
    attribute = composed(tmp_path, OWN).attribute
    assert (attribute.name, list(attribute.options)) == ("hat", ["cap", "hood"])
    assert len(OWN.splitlines()) <= 12


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("evaluation_prompts", "evaluation_prompt", ("no attribute.evaluation_prompt.", "mean evaluation_prompts?")),
        ("name: hat", "name: hat\ncolour: red", ("no attribute.colour.", "Known here: name, options")),
        ("[a photo of a person in a cap]", "a photo", ("hat.yaml: attribute.options.cap must be a list",)),
        ("[a photo of a singer]", "a photo of a singer", ("attribute.evaluation_prompts must be a list",)),
        ("cap: [a photo of a person in a cap]", "cap:", ("attribute.options.cap is empty",)),
        ("[a photo of a person in a cap]", "[]", ("'cap'", "empty label text")),
        ("person in a hood", "person in a cap", ("'cap' and 'hood'", "share the label text")),
        ("hood:", "cap:", ("hat.yaml, line 4", "duplicate key cap")),
        ("  hood: [a photo of a person in a hood]\n", "", ("'hat' has 1 option(s) (cap)", "at least two")),
        ("cap: [", "yes: [", ("True", "bool", "quotes")),
        ("cap: [", "1: [", ("options.1", "int", "quotes")),
        ("cap: [", "null: [", ("options: YAML reads null", "quotes")),
        ("cap: [", "no: [", ("options.False", "bool", "quotes")),
        ("[a photo of a person in a cap]", "[no, 1]", ("options.cap: YAML reads a text as False", "quotes")),
        ("[a photo of a person in a cap]", "[a cap, 1]", ("options.cap: YAML reads a text as 1 (int)", "quotes")),
        ("[a photo of a person in a cap]", "[a cap, null]", ("options.cap[1] is empty",)),
        ("name: hat", "name: no", ("attribute.name contains False", "quotes")),
        ("[person]", "[yes]", ("probe_subjects contains True", "quotes")),
        ("a photo of a {}", "a photo", ("'a photo' has no {}",)),
        ('"a photo of a {}"', "{}", ("probe_templates contains {}", "quotes")),
        ("[a photo of a singer]", "[a photo: of a singer]", ("evaluation_prompts contains", "quotes")),
        ("[a photo of a singer]", "[]", ("attribute.evaluation_prompts is empty",)),
        ("evaluation_prompts: [a photo of a singer]\n", "", ("attribute.evaluation_prompts has no value",)),
        ("name: hat", "name: hat\nwords: {hat: [hat]}", ("no attribute.words.hat", "Known here: cap, hood")),
        ("name: hat", "name: hat\nwords: {cap: ['--']}", ("attribute.words.cap contains '--'", "no word")),
        ("name: hat", "name: hat\nwords: {cap: beret}", ("hat.yaml: attribute.words.cap must be a list",)),
        ("[person]", "[person", ("hat.yaml, line", "expected")),
    ],
)
def test_a_wrong_line_is_explained_in_one(tmp_path: Path, right: str, wrong: str, said: tuple[str, ...]) -> None:
    assert right in OWN
    with pytest.raises((ConfigError, HydraException, OmegaConfBaseException, YAMLError)) as caught:
        composed(tmp_path, OWN.replace(right, wrong))
    message = explain(caught.value)
    assert all(part in message for part in said)
    assert "\n" not in message
    assert "Traceback" not in message


def test_options_that_are_no_mapping_are_explained(tmp_path: Path) -> None:
    with pytest.raises(HydraException) as caught:
        composed(tmp_path, "name: hat\noptions: [cap, hood]\n")
    assert "hat.yaml: ['cap', 'hood'] must be a mapping" in explain(caught.value)


def test_a_mistake_nobody_foresaw_keeps_the_words_of_its_finder() -> None:
    assert explain(ConfigError("alpha=nan is not a finite number.")) == "alpha=nan is not a finite number."


@pytest.mark.parametrize("attribute", ["gender_photo", "age_3", "race_4", "race_7", *CONCEPTS])
def test_every_attribute_for_photographs_composes_with_enough_neutral_prompts(
    compose_settings: Compose, attribute: str
) -> None:
    found = compose_settings("experiment=sd15_concept", f"attribute={attribute}").attribute
    prompts = [template.replace("{}", "") for template in found.probe_templates] + found.evaluation_prompts
    named = {option for option in found.options for prompt in prompts if option.replace("_", " ") in prompt.lower()}
    assert named == set()  # a prompt that names an option leaves nothing open
    assert len(found.probe_templates) * len(found.probe_subjects) >= 40
    assert len(found.evaluation_prompts) >= 4


@pytest.mark.parametrize(
    ("experiment", "options"),
    [
        ("sd15_gender", ["woman", "man"]),
        ("sd15_age", ["young", "adult", "old"]),
        ("sd15_race", ["white", "black", "asian", "indian"]),
        ("sd15_concept", ["red", "white", "yellow", "blue", "purple", "pink"]),
    ],
)
def test_the_papers_runs_are_labelled_and_judged_with_clip(
    compose_settings: Compose, experiment: str, options: list[str]
) -> None:
    settings = compose_settings(f"experiment={experiment}")
    assert list(settings.attribute.options) == options
    assert (settings.model.name, settings.labeler.kind, settings.judge.kind) == ("sd15", "clip", "clip")


def test_a_value_that_hydra_cannot_parse_is_told_to_need_quotes() -> None:
    parser = OverridesParser.create()
    with pytest.raises(HydraException) as caught:
        parser.parse_overrides(["images=/photos/図"])
    assert "two pairs of quotes" in explain(caught.value)
    assert parser.parse_override('images="/photos/図 (1)"').value() == "/photos/図 (1)"
