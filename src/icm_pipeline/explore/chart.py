"""The chart of the choice being made: what the probes read of originals and of steered pictures, step by step."""

from collections.abc import Sequence
from html import escape

import numpy as np

from icm_pipeline.explore.material import Material
from icm_pipeline.explore.studio import Picture, Shown
from icm_pipeline.report.figures.style import short_names

WIDTH, HEIGHT = 520, 190
LEFT, RIGHT, TOP, BOTTOM = 34, 76, 10, 34  # of the plotted area; names of the lines stand at its right
LABEL_APART = 14


def readings_of(pictures: Sequence[Picture], option: int) -> list[float]:
    """Return the mean probability of an option at each step; empty without readings."""
    found = [picture.reading[:, option] for picture in pictures if picture.reading is not None]
    return [float(value) for value in np.mean(found, axis=0)] if found else []


def chart_html(shown: Shown, material: Material) -> str:
    """Return the chart of the setting's option as SVG; nothing without readings."""
    option = material.options.index(shown.setting.option)
    lines = {"original": readings_of(shown.originals, option), "steered": readings_of(shown.steered or [], option)}
    lines = {name: values for name, values in lines.items() if values}
    if not lines:
        return ""
    num_steps = max(map(len, lines.values()))
    ends = _spread({name: _y(values[-1]) for name, values in lines.items()})
    drawn = "".join(
        f'<polyline class="icm-{name}" points="{_points(values, num_steps)}"/>'
        f'<text class="icm-{name}" x="{WIDTH - RIGHT + 6}" y="{ends[name] + 4:.1f}">{name}</text>'
        for name, values in lines.items()
    )
    names = dict(zip(material.layers, short_names(material.layers), strict=True))
    layer = "" if material.reading is None else names.get(material.reading.layer, material.reading.layer)
    count = len(shown.originals)
    mean = f"mean of {count} images" if count > 1 else "one image"
    title = escape(f"P({shown.setting.option}) by the probes of {layer}, at each denoising step, {mean}")
    is_rival = shown.setting.way in material.rivals
    return (
        f'<figure class="icm-chart"><figcaption>The choice being made: {title}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f"{'' if is_rival else _window(shown, num_steps)}{_axes(num_steps, is_rival)}{drawn}</svg>"
        f'<p class="icm-note">{_told(shown, material, is_rival)}</p></figure>'
    )


def _told(shown: Shown, material: Material, is_rival: bool) -> str:
    """Return what the chart is of, and what it is not."""
    is_steered = material.reading is not None and material.reading.layer in shown.setting.layers
    whose = "one layer" if is_rival else "one layer, steered here" if is_steered else "one layer, not steered here"
    return f"What {whose}, holds at each step; the judge sees the finished picture, and may see another option."


def _x(step: float, num_steps: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * step / max(1, num_steps - 1)


def _y(probability: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - probability)


def _points(values: Sequence[float], num_steps: int) -> str:
    return " ".join(f"{_x(step, num_steps):.1f},{_y(value):.1f}" for step, value in enumerate(values))


def _window(shown: Shown, num_steps: int) -> str:
    """Return the steered steps as a band."""
    first, last = (_x(step, num_steps) for step in (shown.setting.first_step, shown.setting.last_step))
    return f'<rect class="icm-window" x="{first:.1f}" y="{TOP}" width="{last - first:.1f}" height="{_y(0) - TOP}"/>'


def _axes(num_steps: int, is_rival: bool) -> str:
    drawn = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(value):.1f}" y2="{_y(value):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{_y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        for value in (0, 0.5, 1)
    )
    told = range(0, num_steps, max(1, num_steps // 5))
    steps = "".join(
        f'<text x="{_x(step, num_steps):.1f}" y="{_y(0) + 14:.1f}" text-anchor="middle">{step}</text>' for step in told
    )
    words = "step" if is_rival else "step (shaded: steered)"
    middle = (LEFT + WIDTH - RIGHT) / 2
    return f'{drawn}{steps}<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{words}</text>'


def _spread(places: dict[str, float]) -> dict[str, float]:
    """Return where the lines' names stand, apart from each other."""
    if len(places) < 2:
        return places
    upper, lower = sorted(places, key=lambda name: places[name])
    missing = max(0.0, LABEL_APART - (places[lower] - places[upper])) / 2
    return {upper: places[upper] - missing, lower: places[lower] + missing}
