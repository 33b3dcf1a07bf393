"""What the HTML pages are put together from: places in charts, thumbnails, heat maps, and which pictures are shown."""

import base64
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icm_pipeline.images.table import ImageRow
from icm_pipeline.report.html.charts import Axis, Spot, chart, staircase
from icm_pipeline.report.html.gallery import FATES, Gallery, fate_of, most_telling, one_of_each, spread
from icm_pipeline.report.html.heat_map import heat_map, ranked
from icm_pipeline.report.html.thumbnails import MOST_PIXELS, Thumbnails
from icm_pipeline.results.images import SteeredImage
from tests.helpers.pages import LAYERS
from tests.helpers.results import scores


def decoded(uri: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def row(number: int, option: str = "woman", prompt: str = "p", shown: str | None = None) -> ImageRow:
    return ImageRow(str(number), prompt, 0, number, option, Path(f"{number}.png"), shown=shown)


def verdict(steered_to: str, woman: float) -> SteeredImage:
    shown = np.array([woman, 1 - woman])
    return SteeredImage("p", steered_to, shown, None, shown, ("woman", "man"))


@pytest.mark.parametrize(
    ("low", "high", "numbers"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.871, 0.93, ["0.88", "0.90", "0.92"]),
        (0, 30, ["0", "10", "20", "30"]),
        (-0.02, 0.02, ["-0.02", "-0.01", "0.00", "0.01", "0.02"]),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(low: float, high: float, numbers: list[str]) -> None:
    ticks = Axis("x", low, high).ticks
    assert [text for _, text in ticks] == numbers
    assert all(-1e-9 <= place <= 100 + 1e-9 for place, _ in ticks)


def test_an_axis_of_one_value_still_has_room() -> None:
    axis = Axis.around("x", [2.0, 2.0])
    assert axis.low < 2.0 < axis.high
    assert Axis.around("FD", [0.0], zero=True).high > 0


def test_an_interval_beyond_the_axis_ends_at_its_edge() -> None:
    spot = Spot("0", "0", "", 0.5, 0.5, interval=(-1.0, 0.75))
    drawn = chart("", Axis("FD", 0, 1), Axis("CLIP-I", 0, 1), [spot], original=3.0)
    assert drawn.points[0].span == (0.0, 75.0)
    assert drawn.original is None  # it lies outside


def test_the_front_goes_right_before_it_goes_up() -> None:
    assert staircase([(2.0, 5.0), (1.0, 3.0)]) == [(1.0, 3.0), (2.0, 3.0), (2.0, 5.0)]


def test_many_points_are_labelled_on_the_front_only_and_long_labels_never() -> None:
    spots = [Spot(str(n), f"job {n}", "", n, n, is_best=n == 3) for n in range(20)]
    axes = Axis("x", 0, 20), Axis("y", 0, 20)
    assert [point.label for point in chart("", *axes, spots).points if point.label] == ["job 3"]
    assert [point.label for point in chart("", *axes, spots[:4]).points] == [f"job {n}" for n in range(4)]
    assert chart("", *axes, [Spot("0", "a very long name", "", 0, 0, is_best=True)]).points[0].label == ""


def test_a_picture_is_kept_once_and_no_larger_than_needed(tmp_path: Path) -> None:
    Image.new("RGB", (800, 400), "red").save(tmp_path / "a.png")
    Image.new("RGB", (800, 400), "red").save(tmp_path / "b.png")
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "c.png")
    kept = Thumbnails()
    names = [kept.add(tmp_path / f"{name}.png") for name in "abc"]
    assert names[0] == names[1] != names[2]
    assert [decoded(uri).size for uri in kept.uris.values()] == [(MOST_PIXELS, MOST_PIXELS // 2), (16, 16)]


def test_a_picture_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a\.png cannot be read: no such file"):
        Thumbnails().add(tmp_path / "a.png")


def test_the_heat_map_has_a_pixel_a_cell_brighter_where_accuracy_is_higher() -> None:
    found = heat_map(scores(LAYERS, steps=[0, 10]), ["mid.attn1"])
    own, other = found.panels
    pixels = np.asarray(decoded(own.picture).convert("RGB"), int)
    assert pixels.shape == (2, 2, 3)
    assert pixels[0, 1].sum() > pixels[0, 0].sum() > pixels[1, 0].sum()
    assert (own.layers, own.steered, own.accuracy) == (["mid.attn1", "up.attn1"], [True, False], [[0.6, 1], [0.5, 0.6]])
    assert [(label.text, label.is_steered) for label in own.labels] == [("mid", True), ("up", False)]
    assert other.name == "cross-attention"
    assert found.shown_steps == [(25.0, 0), (75.0, 10)]


def test_of_very_many_layers_names_leave_room_for_each_other() -> None:
    many = {f"mid.{number}.attn1": ("self_attention", 0.5, [0.5]) for number in range(600)}
    (panel,) = heat_map(scores(many, steps=[0]), ["mid.7.attn1"]).panels
    assert panel.height <= 900
    tops = [label.top * panel.height / 100 for label in panel.labels]
    assert min(b - a for a, b in pairwise(tops)) >= 12
    assert [label.text for label in panel.labels if label.is_steered] == ["mid 7"]


def test_layers_are_ranked_by_their_mean_and_told_their_best_step() -> None:
    first, *_, last = ranked(scores(LAYERS, steps=[0, 10]), ["mid.attn1"])
    assert (first.rank, first.layer, first.best_step, first.is_steered) == (1, "mid.attn1", 10, True)
    assert (last.layer, last.place) == ("mid.attn2", 0.0)


def test_the_fate_of_an_image_is_what_the_judge_says() -> None:
    assert fate_of(row(0), verdict("woman", 0.9)) == "obeyed"
    assert fate_of(row(0), verdict("woman", 0.1)) == "missed"
    assert fate_of(row(0, shown="woman"), verdict("woman", 0.9)) == "left"
    assert fate_of(row(0, shown="woman"), verdict("woman", 0.1)) == "missed"  # the evaluation's judge sees otherwise
    assert fate_of(row(0, ""), verdict("", 0.9)) == "undrawn"
    assert fate_of(row(0), None) == "unjudged"
    assert fate_of(row(0), verdict("woman", float("nan"))) == "missed"  # one that cannot be judged did not obey


def test_of_too_many_pictures_those_that_disobeyed_are_kept_up_to_a_half() -> None:
    rows = [row(number) for number in range(100)]
    judged = {str(number): verdict("woman", 0.1 if number >= 97 else 0.9) for number in range(100)}
    kept = most_telling(rows, judged, 10)
    assert [each.seed for each in kept][-3:] == [97, 98, 99]
    assert len(kept) == 10
    mostly = {str(number): verdict("woman", 0.9 if number >= 97 else 0.1) for number in range(100)}
    assert len(most_telling(rows, mostly, 10)) == 10
    assert most_telling(rows[:5], judged, 10) == rows[:5]


def test_few_pictures_are_of_every_prompt_and_option() -> None:
    rows = [row(number, ("woman", "man")[number // 50], f"prompt {number % 2}") for number in range(100)]
    assert {(each.prompt, each.option) for each in one_of_each(rows, 4)} == {
        (f"prompt {number}", option) for number in (0, 1) for option in ("woman", "man")
    }
    assert spread(range(10), 3) == [0, 3, 6]


def test_a_gallery_tells_its_prompts_options_and_fates(tmp_path: Path) -> None:
    for name in ("0", "1"):
        Image.new("RGB", (8, 8), "red" if name == "0" else "blue").save(tmp_path / f"{name}.png")
    rows = [ImageRow(name, f"prompt {name}", 0, None, "man", tmp_path / f"{name}.png") for name in ("0", "1")]
    gallery = Gallery()
    twins = gallery.twins_of(gallery.add_originals(rows), {"1": rows[1]}, {"1": verdict("man", 0.9)})
    assert list(twins) == ["1"]
    twin = twins["1"]
    assert (twin.caption, twin.sees, twin.probabilities[0]) == ("not man", "woman", ("woman", "90%", "90%"))
    assert gallery.prompts == ["prompt 0", "prompt 1"]
    assert set(gallery.fates) <= set(FATES)
