"""The page's own parts tell what they are to tell, and take no text for markup."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from icm_pipeline.explore.chart import chart_html, readings_of
from icm_pipeline.explore.material import Material, Rival
from icm_pipeline.explore.rendering import map_html, shown_html, strip_html
from icm_pipeline.explore.setting import Setting, first_setting
from icm_pipeline.explore.studio import STRIP, Picture, Shown


def picture(seed: int, probability: float, steered_to: str = "", colour: str = "white") -> Picture:
    reading = np.array([[1 - probability, probability]] * 4)
    return Picture(
        seed, Image.new("RGB", (4, 4), colour), np.array([1 - probability, probability]), reading, steered_to
    )


@pytest.fixture
def setting(gender: Material) -> Setting:
    return first_setting(gender)


def test_a_row_has_the_original_the_steered_picture_and_their_difference_with_what_the_judge_sees(
    gender: Material, setting: Setting
) -> None:
    shown = Shown(setting, [picture(7, 0.125)], [picture(7, 0.875, "man", "black")])
    html = shown_html(shown, gender)
    assert html.count("<img") == 3
    assert [told in html for told in ("original, seed 7", "steered to man", "difference")] == [True] * 3
    assert re.findall(r'value="([\d.]+)"', html) == ["0.875", "0.125", "0.125", "0.875"]
    assert shown_html(replace(shown, steered=None), gender).count("<img") == 1


def test_what_the_judge_cannot_see_is_told(gender: Material, setting: Setting) -> None:
    blind = replace(picture(0, 0.5), probabilities=np.array([np.nan, np.nan]))
    assert "the judge sees nobody" in shown_html(Shown(setting, [blind]), gender)


def test_the_map_has_a_button_for_every_layer_and_step_and_marks_the_steered_window(
    gender: Material, setting: Setting
) -> None:
    html = map_html(gender, replace(setting, first_step=1, last_step=2))
    assert html.count("<button") == len(gender.layers) + gender.num_steps
    assert html.count('aria-pressed="true"') == len(setting.layers) == 3
    assert html.count('td class="icm-inside"') == 2 * len(setting.layers)
    assert f"{gender.scores.chance:.2f}" in html  # type: ignore[union-attr]


def test_a_map_of_a_file_says_that_it_knows_means_alone(gender: Material, setting: Setting) -> None:
    assert "each layer's mean alone" in map_html(replace(gender, scores=None), setting)


def test_names_with_markup_stay_text(gender: Material, setting: Setting) -> None:
    evil = "<script>alert(1)</script>"
    named = replace(gender, vectors=replace(gender.vectors, options=(evil, "man")))
    shown = Shown(replace(setting, option=evil), [picture(0, 0.5)], [picture(0, 0.5, evil)])
    strip = [picture(0, 0.5, evil) for _ in STRIP]
    for html in (shown_html(shown, named), strip_html(strip, named), chart_html(shown, named)):
        assert "<script" not in html
        assert "&lt;script&gt;" in html


def test_the_chart_draws_the_mean_of_each_set_for_the_option_that_is_steered_to(
    gender: Material, setting: Setting
) -> None:
    originals, steered = [picture(0, 0.25), picture(1, 0.75)], [picture(0, 1.0, "man")] * 2
    assert readings_of(originals, 1) == [0.5] * 4
    drawn = chart_html(Shown(replace(setting, option="man"), originals, steered), gender)
    lines = dict(re.findall(r'<polyline class="icm-(\w+)" points="([^"]+)"', drawn))
    assert [float(point.split(",")[1]) for point in lines["steered"].split()] == [10.0] * 4
    assert [float(point.split(",")[1]) for point in lines["original"].split()] == [83.0] * 4


def test_a_chart_says_what_it_is_of_and_shades_no_steps_of_another_method(gender: Material, setting: Setting) -> None:
    shown = Shown(setting, [picture(0, 0.25), picture(1, 0.75)], [picture(0, 1.0, "man")] * 2)
    own = chart_html(shown, gender)
    assert "mean of 2 images" in own
    assert "icm-window" in own
    assert "one layer, steered here" in own
    others = tuple(layer for layer in gender.layers if layer not in setting.layers)
    assert "not steered here" in chart_html(replace(shown, setting=replace(setting, layers=others)), gender)
    rival = replace(gender, rivals={"uce": Rival(gender.settings, {})})
    assert "icm-window" not in chart_html(replace(shown, setting=replace(setting, way="uce")), rival)


def test_there_is_no_chart_without_readings(gender: Material, setting: Setting) -> None:
    assert chart_html(Shown(setting, [replace(picture(0, 0.5), reading=None)]), gender) == ""
