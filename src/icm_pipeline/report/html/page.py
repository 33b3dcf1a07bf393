"""How a page is put together: its template, style and script, and the data that the script reads."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from icm_pipeline.report.html.gallery import Gallery
from icm_pipeline.report.html.heat_map import HeatMap

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Series:
    """Jobs that differ in one number only, in its order: what the slider goes along."""

    name: str
    axis: str
    values: list[str]
    jobs: list[str]


def write_html(
    path: Path,
    template: str,
    gallery: Gallery,
    heat: HeatMap | None = None,
    series: Sequence[Series] = (),
    first: str | None = None,
    **shown: Any,
) -> Path:
    """Write a page of a template and return its path; whatever is text in it is escaped.

    first: whose pictures it begins with; shown: what the template shows beside.
    """
    places = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    style, script = ((TEMPLATES / name).read_text("utf-8") for name in ("report.css", "report.js"))
    data = {**_data(gallery, heat, series), "first": first}
    page = places.get_template(template).render(
        style=style, script=script, gallery=gallery, heat=heat, series=series, data=data, **shown
    )
    path.write_text(page, "utf-8")
    return path


def _data(gallery: Gallery, heat: HeatMap | None, series: Sequence[Series]) -> dict[str, Any]:
    """Return what the page's script reads, for JSON."""
    return {
        "pictures": gallery.pictures.uris,
        "shown": {shown.name: asdict(shown) for shown in gallery.shown},
        "series": [asdict(each) for each in series],
        "heat": None if heat is None else {
            "steps": heat.steps, "chance": heat.chance,
            "panels": [{"layers": each.layers, "steered": each.steered, "accuracy": each.accuracy}
                       for each in heat.panels],
        },
    }  # fmt: skip
