"""HTML of the page's own parts: pictures with what the judge sees, the strip along alpha, and the map to click in."""

from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.explore.material import Material
from icm_pipeline.explore.pictures import data_uri, difference
from icm_pipeline.explore.setting import Setting
from icm_pipeline.explore.studio import STRIP, Picture, Shown
from icm_pipeline.report.figures.style import short_names

DARKEST = 0.45  # of the map's colours: the accuracy of a file that does not tell its layers' steps


def shown_html(shown: Shown, material: Material) -> str:
    """Return the pictures of a setting: an original, the steered one and their difference in a row for each seed."""
    steered: Sequence[Picture | None] = shown.steered or [None] * len(shown.originals)
    rows = [_row(before, after, material) for before, after in zip(shown.originals, steered, strict=True)]
    many = " icm-many" if len(rows) > 2 else ""
    return f'<div class="icm-rows{many}">{"".join(rows)}</div>'


def strip_html(pictures: Sequence[Picture], material: Material) -> str:
    """Return one picture along alpha, from one option through none to the other."""
    cells = []
    for share, picture in zip(STRIP, pictures, strict=True):
        strength = f"{abs(share) * material.alpha:g}"
        left_out = f"left as it is, {strength}" if share else "original"
        told = f"{picture.steered_to} {strength}" if picture.steered_to else left_out
        cells.append(_figure(picture.image, told, picture.probabilities, material))
    return f'<div class="icm-strip">{"".join(cells)}</div>'


def map_html(material: Material, setting: Setting) -> str:
    """Return the map of where the choice can be read: a button for each layer, step and cell, chosen ones marked."""
    num_steps, columns = material.num_steps, _columns(material)
    head = "".join(_step_button(step, setting, num_steps) for step in range(num_steps))
    body, kind_before = [], ""
    names = dict(zip(material.layers, short_names(material.layers), strict=True))
    for layer in material.layers:
        if (kind := material.kind(layer)) != kind_before:
            title = escape(KIND_NAMES.get(kind, kind))
            body.append(f'<tr class="icm-kind"><th colspan="{num_steps + 1}">{title}</th></tr>')
            kind_before = kind
        body.append(_map_row(layer, names[layer], columns[layer], setting, material))
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="icm-map" role="group" aria-label="layers and steps">{table}</div><p>{_legend(material)}</p>'


def _row(before: Picture, after: Picture | None, material: Material) -> str:
    cells = [_figure(before.image, f"original, seed {before.seed}", before.probabilities, material)]
    if after is None:
        cells += ['<figure class="icm-waiting"><div></div><figcaption>steering ...</figcaption></figure>'] * 2
    else:
        told = f"steered to {after.steered_to}" if after.steered_to else "left as it is"
        cells.append(_figure(after.image, told, after.probabilities, material))
        cells.append(_figure(difference(before.image, after.image), "difference", None, material))
    return f'<div class="icm-row">{"".join(cells)}</div>'


def _figure(image: Any, told: str, probabilities: Floats | None, material: Material) -> str:
    picture = f'<img src="{data_uri(image)}" alt="{escape(told)}">'
    return f"<figure>{picture}<figcaption>{escape(told)}</figcaption>{_bars(probabilities, material)}</figure>"


def _bars(probabilities: Floats | None, material: Material) -> str:
    """Return a bar for each option of what the judge sees."""
    if probabilities is None:
        return ""
    if np.isnan(probabilities).any():
        return '<div class="icm-bars">the judge sees nobody</div>'
    bars = [
        f'<span>{escape(name)}</span><meter min="0" max="1" value="{value:.3f}"></meter><span>{value:.2f}</span>'
        for name, value in zip(material.options, probabilities, strict=True)
    ]
    return f'<div class="icm-bars"><b>the judge sees</b>{"".join(bars)}</div>'


def _columns(material: Material) -> dict[str, list[float]]:
    """Return the accuracy of every layer at every step of a run; where only means are known, these at each."""
    num_steps = material.num_steps
    if material.scores is None:
        return {layer: [material.vectors.scores.get(layer, DARKEST)] * num_steps for layer in material.layers}
    recorded = np.array(material.scores.steps)
    nearest = [int(np.abs(recorded - step).argmin()) for step in range(num_steps)]
    rows = material.scores.layers
    return {layer: [rows[layer].accuracy[slot] for slot in nearest] for layer in material.layers}


def _map_row(layer: str, name: str, values: Sequence[float], setting: Setting, material: Material) -> str:
    is_chosen = layer in setting.layers
    chance = material.scores.chance if material.scores is not None else 0.0
    cells = "".join(
        f'<td class="{_inside(step, setting) if is_chosen else ""}" style="background:{_colour(value, chance)}" '
        f'data-layer="{escape(layer)}" title="{escape(name)}, step {step}: {value:.2f}"></td>'
        for step, value in enumerate(values)
    )
    button = (
        f'<button data-layer="{escape(layer)}" aria-pressed="{str(is_chosen).lower()}" title="{escape(layer)}">'
        f"{escape(name)}</button>"
    )
    return f'<tr class="{"icm-chosen" if is_chosen else ""}"><th>{button}</th>{cells}</tr>'


@cache
def _palette() -> list[str]:
    """Return the colours from chance to 1."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0, 1, 256))]


def _colour(accuracy: float, chance: float) -> str:
    return _palette()[round(255 * min(1.0, max(0.0, (accuracy - chance) / max(1e-9, 1 - chance))))]


def _inside(step: int, setting: Setting) -> str:
    return "icm-inside" if setting.first_step <= step <= setting.last_step else ""


def _step_button(step: int, setting: Setting, num_steps: int) -> str:
    told = f"{step}" if step % max(1, num_steps // 5) == 0 else ""
    hint = "click: move the nearer end of the window here"
    return (
        f'<th><button class="{_inside(step, setting)}" data-step="{step}" aria-label="step {step}" title="{hint}">'
        f"{told}</button></th>"
    )


def _legend(material: Material) -> str:
    click = "Outlined: steered. Click a layer to steer it or not, a step to move the window."
    if material.scores is None:
        return f"Held-out accuracy {_colour_bar('0')}: the file tells each layer's mean alone. {click}"
    return f"Held-out accuracy of the probes {_colour_bar(f'{material.scores.chance:.2f}, chance')}. {click}"


def _colour_bar(lowest: str) -> str:
    colours = ",".join(_palette()[::51])
    bar = f'<i style="background:linear-gradient(90deg,{colours})"></i>'
    return f'<span class="icm-colours">{lowest} {bar} 1.00</span>'
