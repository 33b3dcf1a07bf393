"""A setting is checked, moves with the slider and the map, and is told as a command line and as vectors."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from icm_pipeline.cli.exploring import job_words
from icm_pipeline.config.exploring import LARGEST_IMAGE_SEED
from icm_pipeline.explore.material import Material
from icm_pipeline.explore.setting import (
    Setting,
    at_position,
    checked,
    command_of,
    first_setting,
    own_setting,
    position_of,
    saved_vectors,
    ways_of,
)
from icm_pipeline.methods.vectors import load_vectors


@pytest.fixture
def setting(gender: Material) -> Setting:
    return first_setting(gender)


def test_the_first_setting_is_as_the_vectors_were_used(gender: Material, setting: Setting) -> None:
    assert (setting.alpha, setting.layers, setting.option) == (7.0, gender.chosen, "woman")
    assert (setting.first_step, setting.last_step) == (0, 3)  # 0 to 16 of 20 steps, in a run of 4


def test_what_the_configuration_asks_for_comes_before_it(gender: Material) -> None:
    asked = replace(gender.settings.explore, option="man", alpha=3.0, prompt="a face", layers=[gender.layers[0]])
    found = first_setting(replace(gender, settings=replace(gender.settings, explore=asked)))
    assert (found.option, found.alpha, found.prompt, found.layers) == ("man", 3.0, "a face", (gender.layers[0],))
    assert own_setting(replace(gender, settings=replace(gender.settings, explore=asked))) == first_setting(gender)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": ""}, "The prompt has 0 characters"),
        ({"prompt": "x" * 501}, "501 characters"),
        ({"seed": -1}, "The seed is -1"),
        ({"seed": LARGEST_IMAGE_SEED + 1}, "The seed is"),
        ({"num_images": 9}, "give 1 to 8"),
        ({"num_images": 0}, "give 1 to 8"),
        ({"way": "uce"}, "choose published, least_change, look"),
        ({"option": "old"}, "choose woman, man"),
        ({"alpha": 14.1}, "give 0 to 14"),
        ({"alpha": float("nan")}, "give 0 to 14"),
        ({"layers": ()}, "No layer is chosen"),
        ({"layers": ("nowhere",)}, "No vectors for nowhere"),
        ({"first_step": 3, "last_step": 2}, "give two of 0 to 3"),
        ({"last_step": 4}, "give two of 0 to 3"),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_can(
    gender: Material, setting: Setting, change: dict[str, object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        checked(replace(setting, **change), gender)  # type: ignore[arg-type]


def test_the_slider_goes_from_one_option_through_none_to_the_other(setting: Setting) -> None:
    ends = [at_position(setting, position, "woman", "man") for position in (-7.0, 0.0, 3.5)]
    assert [(each.option, each.alpha) for each in ends] == [("woman", 7.0), ("man", 0.0), ("man", 3.5)]
    assert [position_of(each, "woman") for each in ends] == [-7.0, 0.0, 3.5]


def test_saved_vectors_hold_the_layers_and_how_they_steer(gender: Material, setting: Setting, tmp_path: Path) -> None:
    own = replace(setting, layers=gender.layers[:2], alpha=3.0, first_step=1, last_step=2)
    saved_vectors(own, gender).save(tmp_path / "v.safetensors")
    found = load_vectors(tmp_path / "v.safetensors")
    assert found.layers == gender.layers[:2]
    assert found.strength is not None
    assert (found.strength.alpha, found.strength.alpha_unit, found.strength.window(4)) == (3.0, "relative", range(1, 3))
    assert len(found.readers) == len(gender.vectors.readers) > 0


def test_the_command_line_tells_the_whole_setting(gender: Material, setting: Setting) -> None:
    own = replace(setting, prompt='it\'s a face, "plain" ${x}', balanced=True, alpha=3.25)
    words = job_words(shlex.split(command_of(own, gender))[2:])
    told = dict(word.split("=", 1) for word in words)
    assert told["explore.prompt"] == "'it\\'s a face, \"plain\" \\${x}'"
    assert told["explore.layers"] == f"[{','.join(own.layers)}]"
    assert (told["explore.alpha"], told["explore.balanced"], told["attribute"]) == ("3.25", "true", "gender")
    assert told["stage"] == "explore"


def test_ways_are_those_that_there_is_something_for(gender: Material) -> None:
    without = replace(gender, vectors=replace(gender.vectors, readers=()))
    assert list(ways_of(gender)) == ["published", "least_change", "look"]
    assert list(ways_of(without)) == ["published", "least_change"]
    assert list(ways_of(replace(without, judge_problem="no weights"))) == ["published"]
