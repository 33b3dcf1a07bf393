"""What says an option in a prompt of method=prompt, uce and time: words that name it, and keys that stand for them."""

from collections.abc import Callable

import pytest

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.relevance import relevant
from icm_pipeline.config.schema import Settings
from icm_pipeline.methods.concepts import bare, option_words, with_option

Compose = Callable[..., Settings]


def prompts(settings: Settings, prompt: str) -> list[str]:
    """Return a prompt with each option."""
    return [with_option(prompt, words) for words in option_words(settings)]


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("gender", ["a face of a woman engineer", "a face of a man engineer"]),
        ("skin_tone", [f"a face of a {tone}-skinned engineer" for tone in ("light", "tan", "brown", "dark")]),
        ("glasses", ["a face of an engineer without glasses", "a face of an engineer with glasses"]),
        ("age_3", ["a face of a young engineer", "a face of a middle-aged engineer", "a face of an elderly engineer"]),
    ],
)
def test_a_prompt_says_an_option_in_words_that_name_it(
    compose_settings: Compose, attribute: str, expected: list[str]
) -> None:
    for method in ("prompt", "uce", "time"):
        settings = compose_settings(f"method={method}", f"attribute={attribute}")
        assert prompts(settings, "a face of an engineer") == expected


def test_words_stand_without_the_subject_where_a_prompt_has_none() -> None:
    assert with_option("two doctors", "{} without glasses") == "two doctors, without glasses"
    assert [bare(words) for words in ("light-skinned {}", "{} with glasses", "woman")] == [
        "light-skinned", "with glasses", "woman",
    ]  # fmt: skip
    assert with_option("the doctor", "Asian {}") == "the Asian doctor"
    assert with_option("a face of a doctor", "Asian {}") == "a face of an Asian doctor"


@pytest.mark.parametrize("method", ["prompt", "uce", "time"])
def test_a_key_stands_for_the_words_and_that_of_names_is_as_it_was(compose_settings: Compose, method: str) -> None:
    def read(*words: str) -> list[dict[str, object]]:
        settings = compose_settings(f"method={method}", *words)
        return [relevant(settings, "method.params", ()), relevant(settings, "method", ["method"])["params"]]

    for words in (["attribute=gender"], ["attribute=age"], ["attribute=skin_tone", "method.params.option_words=null"]):
        assert all("option_words" not in params for params in read(*words))
    tones = read("attribute=skin_tone")
    for params in tones:
        assert params["option_words"]["light"] == "light-skinned {}"  # type: ignore[index]
    assert read("attribute=skin_tone", "attribute.named.light='pale {}'") != tones


def test_a_prompt_that_names_no_option_has_no_words_in_its_key(compose_settings: Compose) -> None:
    settings = compose_settings("method=prompt_ethical", "attribute=skin_tone")
    assert "option_words" not in relevant(settings, "method.params", ())


def test_words_that_lack_an_option_are_refused(compose_settings: Compose) -> None:
    settings = compose_settings("method=prompt", "attribute=glasses")
    del settings.method.params["option_words"]["none"]
    with pytest.raises(ConfigError, match=r"option_words has no words for none\."):
        option_words(settings)
