"""Ways of steering in words: what is usual stays unsaid, what is unusual is told."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from icm_pipeline.report.figures import comparison
from icm_pipeline.report.wording import describe
from tests.helpers.results import compared, steering


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "best 2 self-attention, alpha 1.5"),
        ({"method": "none"}, "no steering"),
        ({"rule": "random", "kind": "cross_attention"}, "random 2 cross-attention, alpha 1.5"),
        ({"rule": "all"}, "all 2 self-attention, alpha 1.5"),
        ({"rule": "named", "kind": "mixed"}, "2 named mixed, alpha 1.5"),
        ({"alpha_unit": "activation"}, "best 2 self-attention, alpha 1.5 (activation units)"),
        ({"direction": "mean_difference"}, "best 2 self-attention, alpha 1.5, mean difference direction"),
        ({"first_step": 3}, "best 2 self-attention, alpha 1.5, steps 3 to the end"),
        ({"last_step": 9}, "best 2 self-attention, alpha 1.5, steps 0 to 9"),
        ({"method": "of_another_branch"}, "of_another_branch"),
        ({"assignment": "batch"}, "best 2 self-attention, alpha 1.5, drawn per batch"),
    ],
)
def test_a_way_of_steering_is_described_by_what_sets_it_apart(change: dict[str, Any], words: str) -> None:
    assert describe(steering(**change)) == words


@pytest.mark.parametrize("method", ["icm", "none"])
def test_settings_behind_the_steering_are_told_after_it(method: str) -> None:
    words = describe(steering(method=method), ["probe.C=1", "seed=2"])
    assert words == describe(steering(method=method)) + ", probe.C=1, seed=2"


def test_a_result_of_a_method_whose_file_is_gone_is_labelled_by_its_name() -> None:
    rows = [compared(steering=steering(method=method)) for method in ("icm", "of_another_branch")]
    assert comparison._labels(rows)[0] == ["best 2 self-attention, alpha 1.5", "of_another_branch"]


def test_many_labels_leave_out_what_all_points_share() -> None:
    rows = [compared(told=("probe.C=1",) * (alpha == 2), steering=steering(alpha=alpha)) for alpha in range(1, 8)]
    labels, shared = comparison._labels(rows)
    assert (labels[:3], shared) == (["alpha 1", "alpha 2, probe.C=1", "alpha 3"], ["best 2 self-attention"])
    few, nothing = comparison._labels(rows[:3])
    assert (few[0], nothing) == ("best 2 self-attention, alpha 1", [])


def test_labels_leave_out_the_kind_where_the_legend_tells_it() -> None:
    rows = [compared(steering=steering(kind=kind)) for kind in ("self_attention", "cross_attention")]
    assert comparison._labels(rows)[0] == ["best 2, alpha 1.5"] * 2


def test_a_point_that_nothing_sets_apart_keeps_its_whole_label() -> None:
    rows = [compared(told=(f"probe.C={c}",) if c else ()) for c in range(7)]
    assert comparison._labels(rows)[0][:2] == ["best 2 self-attention, alpha 1.5", "probe.C=1"]


@pytest.mark.parametrize("kinds", [["self_attention"] * 2, ["self_attention", "cross_attention"]])
def test_the_legend_lies_below_the_panel_and_only_where_there_are_kinds_to_tell_apart(
    figures: list[Figure], tmp_path: Path, kinds: list[str]
) -> None:
    rows = [compared(str(n), clip_i=0.8 + n / 10, steering=steering(kind=kind)) for n, kind in enumerate(kinds)]
    comparison.plot_comparison(tmp_path / "comparison.png", rows, "0")
    (drawing,) = figures
    assert drawing.axes[0].get_legend() is None
    assert len(drawing.legends) == (len(set(kinds)) > 1)
    for legend in drawing.legends:
        assert legend.get_window_extent().y1 < drawing.axes[0].bbox.y0


def test_the_figure_says_what_is_filled_and_where_a_method_acts_that_takes_no_selected_layers(
    figures: list[Figure], tmp_path: Path
) -> None:
    ways = (
        steering(),
        steering(method="prompt", params={"text": "option"}, kind="mixed", layers=[]),
        steering(kind="mixed"),
    )
    rows = [compared(str(n), clip_i=0.8 + n / 10, steering=way) for n, way in enumerate(ways)]
    comparison.plot_comparison(tmp_path / "comparison.png", rows, "0")
    (drawing,) = figures
    assert "filled: this run" in drawing.axes[0].get_title(loc="left").replace("\n", " ")
    (legend,) = drawing.legends
    assert [text.get_text() for text in legend.get_texts()] == ["self-attention", comparison.OWN_CHOICE, "mixed"]
    assert {line.get_marker() for line in legend.get_lines()} == {"None"}  # else a hollow run would have none


def test_labels_of_runs_that_lie_between_others_are_not_cut(figures: list[Figure], tmp_path: Path) -> None:
    long = steering(alpha=8, direction="pattern", first_step=2, last_step=16, assignment="least_change")
    places = [(0.025, 0.9495), (0.038, 0.9223), (0.054, 0.9524), (0.031, 0.9187), (0.057, 0.9534), (0.054, 0.9524)]
    rows = [compared(str(n), fd=fd, clip_i=clip_i, steering=long) for n, (fd, clip_i) in enumerate(places)]
    comparison.plot_comparison(tmp_path / "comparison.png", rows, "0")
    panel = figures[0].axes[0]
    assert all(label.get_window_extent().x0 > panel.bbox.x0 for label in panel.findobj(Annotation))
