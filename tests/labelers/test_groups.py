"""Options are made of a judge's classes; what no option names is dropped, what nobody knows is refused."""

import numpy as np
import pytest

from icm_pipeline.labelers.fairface import MODELS
from icm_pipeline.labelers.groups import Heads, OptionMap, map_options
from tests.helpers.judges import labeler_config

HEADS = MODELS["fairface-7"]
GROUPS = {
    "gender": {"woman": ["Female"], "man": ["Male"]},
    "race": {"asian": ["East Asian", "Southeast Asian"]},
}
YEARS = {"age": tuple(str(years) for years in range(101))}


def mapped_options(
    heads: Heads, groups: dict[str, dict[str, list[str]]], attribute: str, options: list[str]
) -> OptionMap:
    return map_options(heads, labeler_config("fairface", groups=groups), "labeler", attribute, options)


def test_an_option_takes_the_probability_of_all_its_classes_and_the_rest_is_dropped() -> None:
    mapped = mapped_options(HEADS, GROUPS, "race", ["white", "black", "asian", "indian"])
    probabilities = np.array([[0.1, 0.2, 0.05, 0.1, 0.2, 0.3, 0.05]])
    np.testing.assert_allclose(probabilities @ mapped.members, [[0.1, 0.2, 0.3, 0.3]])
    assert mapped.dropped == ("Latino_Hispanic", "Middle Eastern")


def test_an_option_named_like_a_class_needs_no_group_whatever_the_spelling() -> None:
    mapped = mapped_options(HEADS, {}, "race", ["east_asian", "Latino Hispanic"])
    assert mapped.members.argmax(0).tolist() == [3, 2]


def test_a_group_goes_before_a_class_of_the_same_name() -> None:
    groups = {"race": {"white": ["White", "Middle Eastern"]}}
    assert mapped_options(HEADS, groups, "race", ["white", "black"]).members[:, 0].sum() == 2


def test_an_attribute_of_another_name_is_answered_by_the_head_that_has_its_options() -> None:
    assert mapped_options(HEADS, GROUPS, "race_4", ["white", "asian"]).head == "race"
    assert mapped_options(HEADS, GROUPS, "sex", ["woman", "man"]).head == "gender"


def test_an_attribute_no_head_answers_is_refused_with_what_the_judge_can_tell() -> None:
    with pytest.raises(
        ValueError, match=r"cannot judge 'beard'.*race \(White.*gender \(Male, Female; grouped as woman"
    ):
        mapped_options(HEADS, GROUPS, "beard", ["beard", "no beard"])


def test_an_option_nobody_maps_is_refused_with_the_setting_that_would() -> None:
    with pytest.raises(ValueError, match=r"\['robot'\].*labeler\.groups\.gender\.robot="):
        mapped_options(HEADS, GROUPS, "gender", ["woman", "robot"])


def test_a_group_of_classes_that_do_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'Martian'.*White, Black"):
        mapped_options(HEADS, {"race": {"asian": ["Martian"]}}, "race", ["white", "asian"])


def test_options_that_share_a_class_are_refused() -> None:
    with pytest.raises(ValueError, match=r"share classes.*East Asian"):
        mapped_options(HEADS, GROUPS, "race", ["asian", "east asian"])


def test_a_range_of_years_takes_both_of_its_ends_and_an_open_one_the_last_year() -> None:
    groups = {"age": {"young": ["0-19"], "adult": ["20-59"], "old": ["60+"]}}
    mapped = mapped_options(YEARS, groups, "age", ["young", "adult", "old"])
    assert mapped.members.sum(0).tolist() == [20, 40, 41]
    assert mapped.dropped == ()
