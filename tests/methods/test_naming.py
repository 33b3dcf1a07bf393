"""A prompt that names an option is recognised by whole words, and prompts that leave it open are not."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.schema import AttributeConfig
from icm_pipeline.generation.jobs import fill_templates
from icm_pipeline.methods.naming import named_options
from icm_pipeline.pretrain.captions import write_caption
from icm_pipeline.pretrain.world import draw_person
from tests.helpers.settings import NO_WEIGHTS

Shipped = Callable[[str, str], AttributeConfig]
WORDS = {
    "woman": ["woman", "female", "lady"], "man": ["man", "male"], "dark": ["dark skin", "dark-skinned"],
    "old": ["old", "café"], "bush": ["George W. Bush"], "none": [],
}  # fmt: skip
ATTRIBUTES = sorted(path.stem for path in conf_path().glob("attribute/*.yaml"))


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a face of a male nurse", {"man"}),
        ("A FACE OF A MALE NURSE", {"man"}),
        ("a face of a nurse", set()),
        ("a face of a female nurse", {"woman"}),
        ("a woman's face", {"woman"}),
        ("a woman\u2019s face", {"woman"}),
        ("a woman, smiling", {"woman"}),
        ("(woman:1.2)", {"woman"}),
        ("a_man_at_work", {"man"}),
        ("a man and a woman", {"man", "woman"}),
        ("a person who is not a man", {"man"}),
        ("a human being in Germany with a mandolin", set()),
        ("man-made stones and a snow-man", set()),
        ("an old-fashioned hat", set()),
        ("an old hat", {"old"}),
        ("a 70-old", {"old"}),
        ("a dark-skinned nurse", {"dark"}),
        ("a dark\u2011skinned nurse", {"dark"}),
        ("a dark skinned nurse", {"dark"}),
        ("a nurse with dark  skin", {"dark"}),
        ("a nurse in the dark, her skin", set()),
        ("a nurse with darkskin", set()),
        ("a cafe\u0301", {"old"}),
        ("a caf\u00e9", {"old"}),
        ("a femalé", set()),
        ("george w. bush", {"bush"}),
        ("man\nat work", {"man"}),
        ("", set()),
    ],
)
def test_whole_words_are_found_in_any_case_and_nothing_else(prompt: str, named: set[str]) -> None:
    assert named_options(prompt, WORDS) == named


def test_without_words_nothing_is_named() -> None:
    assert named_options("a face of a male nurse", {}) == frozenset()


@pytest.fixture(scope="module")
def shipped() -> Shipped:
    """Give a function to an attribute in a world, each composed once."""
    register_schema()

    @cache
    def found(attribute: str, world: str) -> AttributeConfig:
        with initialize_config_dir(str(conf_path()), version_base="1.3"):
            words = [*NO_WEIGHTS, f"attribute={attribute}", f"world={world}"]
            return to_settings(compose("config", overrides=words)).attribute

    return found


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_the_label_texts_of_a_shipped_attribute_name_their_option(shipped: Shipped, attribute: str) -> None:
    found = shipped(attribute, "people")
    for option in found.words:
        assert [text for text in found.options[option] if option not in named_options(text, found.words)] == []


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("world", ["people", "portraits"])
def test_the_prompts_of_a_shipped_attribute_name_none_of_its_options(
    shipped: Shipped, attribute: str, world: str
) -> None:
    found = shipped(attribute, world)
    assert set(found.words) == set(found.options)
    prompts = fill_templates(found.probe_templates, found.probe_subjects) + found.evaluation_prompts
    assert {prompt: names for prompt in prompts if (names := named_options(prompt, found.words))} == {}


@pytest.fixture
def of_portraits(shipped: Shipped) -> dict[str, AttributeConfig]:
    names = ("gender", "age", "skin_tone", "background", "glasses")
    return {name: shipped(name, "portraits") for name in names}


def test_captions_of_the_embedded_world_are_read_as_what_they_name(of_portraits: dict[str, AttributeConfig]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        caption = write_caption(draw_person(rng), rng)
        for name, attribute in of_portraits.items():
            told = {option for of, option in caption.named if of == name}
            found = named_options(caption.text, attribute.words)
            assert found == told or (name == "glasses" and told == {"none"} and "none" in found), caption.text


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("skin_tone", "a face of a doctor in bright light on a dark background with a brown coat and a tan hat"),
        ("gender", "a face of a human being, a person in Oman, a mango and a sheriff"),
        ("age", "a face of a doctor on a golden background, an old-fashioned portrait of a senior engineer"),
        ("background", "a blue coat and a green field"),
    ],
)
def test_words_with_another_meaning_name_nothing(
    of_portraits: dict[str, AttributeConfig], name: str, prompt: str
) -> None:
    assert named_options(prompt, of_portraits[name].words) == frozenset()
