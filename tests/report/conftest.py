"""What a figure says, and where: texts with their places, in pixels, without writing a file."""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """Give the figures that are drawn, laid out and not written."""
    import matplotlib.pyplot as plt

    drawn: list[Figure] = []

    def laid_out(figure: Figure, *ignored: Any, **options: Any) -> None:
        figure.draw_without_rendering()
        drawn.append(figure)

    monkeypatch.setattr(Figure, "savefig", laid_out)
    monkeypatch.setattr(plt, "close", lambda figure: None)
    yield drawn
    monkeypatch.undo()
    plt.close("all")


def texts_of(figure: Figure) -> dict[Text, Any]:
    """Return the extents of a figure's texts, but for ticks that lie outside their axis and are not drawn."""
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    numbers = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in _beyond(axis)}
    return {text: text.get_window_extent() for text in shown if text not in numbers}


def _beyond(axis: Any) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    ticks, drawn = axis.get_major_ticks(), axis.axes.axison
    return [tick.label1 for tick in ticks if not drawn or not low <= tick.get_loc() <= high]


@pytest.fixture
def check_texts(figures: list[Figure]) -> Callable[[], None]:
    """Give a check that every text of the figures lies inside its figure and covers no other."""

    def check() -> None:
        assert figures
        for figure in figures:
            places = texts_of(figure)
            outside = [
                text.get_text()
                for text, box in places.items()
                if box.x0 < -1 or box.y0 < -1 or box.x1 > figure.bbox.x1 + 1 or box.y1 > figure.bbox.y1 + 1
            ]
            assert not outside
            pairs = combinations([(text.get_text(), box.padded(-1)) for text, box in places.items()], 2)
            assert not [(one, other) for (one, first), (other, second) in pairs if first.overlaps(second)]

    return check
