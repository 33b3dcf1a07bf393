"""Charts of points as places in per cent, which a page draws with its own elements: they fit any width and print.

Points are buttons there, so that a keyboard and a screen reader find them; docs/report.md says why no library draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10

from icm_pipeline.results.evaluation import Interval

TICKS = 5  # of an axis, about
MARGIN = 0.06  # of an axis beyond its outermost values
LONGEST_LABEL = 14  # characters beside a point; of more it is told on hover only
MOST_LABELLED = 14  # points that all have a label; of more, only the best


@dataclass(frozen=True)
class Axis:
    """An axis of a chart."""

    label: str
    low: float
    high: float

    @classmethod
    def around(cls, label: str, values: Sequence[float], zero: bool = False) -> "Axis":
        """Return the axis on which values have some room; zero: whether it begins at 0."""
        low, high = (0.0 if zero else min(values)), max(values)
        room = MARGIN * ((high - low) or abs(high) or 1.0)
        return cls(label, 0.0 if zero else low - room, high + room)

    def place(self, value: float) -> float:
        """Return a value's place, in per cent of the axis."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and numbers: 1, 2 or 5 times a power of ten apart."""
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** floor(log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
        digits = max(0, -floor(log10(step) + 1e-9))
        numbers = range(ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9) + 1)
        return [(self.place(number * step), f"{number * step:z.{digits}f}") for number in numbers]


@dataclass(frozen=True)
class Spot:
    """A point to draw, in the data's units."""

    name: str
    """Of what is shown when it is chosen: a job's."""
    label: str
    tip: str
    """What it is, with its figures."""
    x: float
    y: float
    interval: Interval | None = None
    is_best: bool = False
    series: int = 0


@dataclass(frozen=True)
class Point:
    """A point in per cent of the chart from its left and from its bottom."""

    spot: Spot
    left: float
    bottom: float
    span: tuple[float, float] | None
    """The interval's ends, in per cent of its axis."""
    label: str
    """What stands beside it; empty where there are too many or it is too long."""


@dataclass(frozen=True)
class Chart:
    """Points and lines between them."""

    title: str
    x: Axis
    y: Axis
    points: list[Point]
    lines: list[tuple[int, str]]
    """A series and the points of its line, as SVG has them, from the top left in per cent."""
    upright: bool
    """Whether intervals are the second axis's."""
    original: float | None = None
    """Where the unsteered images are on the axis of intervals, in per cent."""


def chart(
    title: str,
    x: Axis,
    y: Axis,
    spots: Sequence[Spot],
    lines: Sequence[tuple[int, Sequence[tuple[float, float]]]] = (),
    upright: bool = False,
    original: float | None = None,
) -> Chart:
    """Return a chart; lines: a series and its points each; original: a figure to mark on the axis of intervals."""
    ruled = y if upright else x
    points = [
        Point(
            spot, x.place(spot.x), y.place(spot.y),
            None if spot.interval is None else _clipped(ruled, spot.interval),
            spot.label if _is_labelled(spot, spots) else "",
        )
        for spot in spots
    ]  # fmt: skip
    drawn = [
        (series, " ".join(f"{x.place(left):g},{100 - y.place(bottom):g}" for left, bottom in line))
        for series, line in lines
    ]
    inside = original is not None and ruled.low <= original <= ruled.high
    return Chart(title, x, y, points, drawn, upright, ruled.place(original) if inside and original else None)


def staircase(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of a line that goes right, then up, from point to point: a Pareto front's."""
    ordered = sorted(points)
    corners = [(right, bottom) for (_, bottom), (right, _) in pairwise(ordered)]
    return sorted({*ordered, *corners})


def _clipped(axis: Axis, interval: Interval) -> tuple[float, float]:
    low, high = (min(100.0, max(0.0, axis.place(value))) for value in interval)
    return low, high


def _is_labelled(spot: Spot, spots: Sequence[Spot]) -> bool:
    return len(spot.label) <= LONGEST_LABEL and (spot.is_best or len(spots) <= MOST_LABELLED)
