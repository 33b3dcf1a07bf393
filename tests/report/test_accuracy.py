"""The figures of the probes: what is drawn of a large model stays on a page, and the steered layers are named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from icm_pipeline.report.figures.accuracy import MOST_HEIGHT, MOST_RANKED, plot_heat_map, plot_ranking
from icm_pipeline.results.scores import Scores
from tests.helpers.results import scores

DPI = 200


def scores_of(num_layers: int, kinds: tuple[str, ...] = ("self_attention", "cross_attention")) -> Scores:
    return scores(
        {
            f"down_blocks.1.attentions.{number}.transformer_blocks.1.{kind}": (kind, 0.5 + number / 1000, [0.6, 0.7])
            for kind in kinds
            for number in range(num_layers // len(kinds))
        }
    )


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the layers' labels of every axis drawn."""
    from matplotlib.axes import Axes

    seen: list[str] = []
    labelled = Axes.set_yticks

    def watched(axis: Axes, positions: Any, labels: Any = None, **options: Any) -> Any:
        seen.extend(labels or [])
        return labelled(axis, positions, labels, **options)

    monkeypatch.setattr(Axes, "set_yticks", watched)
    return seen


def test_a_large_models_figures_stay_on_a_page_and_name_the_steered_layers(tmp_path: Path, ticks: list[str]) -> None:
    large = scores_of(210)
    chosen = ["down_blocks.1.attentions.3.transformer_blocks.1.self_attention"]  # one of the worst
    with Image.open(plot_heat_map(tmp_path / "map.png", large, chosen, "gender")) as image:
        assert image.height <= DPI * (MOST_HEIGHT + 1.5)
    assert "down 1.3 block 1" in ticks
    assert len(ticks) < 210
    ticks.clear()
    with Image.open(plot_ranking(tmp_path / "ranking.png", large, chosen, "gender")) as image:
        assert image.height <= DPI * MOST_HEIGHT
    assert len(ticks) == MOST_RANKED
    assert [label for label in ticks if label.startswith("down 1.3 ")] == ["down 1.3 block 1  #203"]


def test_every_layer_of_a_small_model_is_named(tmp_path: Path, ticks: list[str]) -> None:
    plot_heat_map(tmp_path / "map.png", scores_of(10), [], "gender")
    assert len(ticks) == 10
    ticks.clear()
    plot_ranking(tmp_path / "ranking.png", scores_of(10), [], "gender")
    assert len(ticks) == 10


def test_no_mark_of_the_rankings_legend_is_filled_as_a_steered_layer_is(figures: list[Figure], tmp_path: Path) -> None:
    plot_ranking(tmp_path / "ranking.png", scores_of(10), [], "gender")
    legend = figures[0].axes[0].get_legend()
    assert legend is not None
    assert [line.get_marker() for line in legend.get_lines()] == ["None", "None"]


def test_the_maps_fill_the_page_whatever_is_marked(tmp_path: Path) -> None:
    small = scores_of(36, ("self_attention", "cross_attention", "feed_forward"))
    with Image.open(plot_heat_map(tmp_path / "map.png", small, list(small.layers)[3:7], "gender")) as image:
        coloured = (np.asarray(image.convert("HSV"))[..., 1] > 100).mean()
    assert coloured > 0.4
