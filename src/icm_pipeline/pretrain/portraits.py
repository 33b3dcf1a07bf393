"""Draw a `Person` as a picture: DiceBear's avataaars as SVG, wrinkles added for the old, rasterised by resvg.

avataaars by Pablo Stanley, free for personal and commercial use. The rendering libraries are the `pretrain` extra.
"""

import io
import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from icm_pipeline.pretrain.world import BACKGROUND_COLORS, SKIN_COLORS, Person
from icm_pipeline.text import installing

PORTRAIT_SIZE = 64  # pixels, square
VIEW_BOX = "26 18 228 228"  # of the 280 x 280 avataaars canvas: head and shoulders fill the frame
TOP_LAYER = '<use transform="translate(8)"'  # where avataaars starts to draw hair; wrinkles go below it
WRINKLES = (
    "M112 150q-8 10-4 22 M168 150q8 10 4 22 M102 126q8 7 20 4 M178 126q-8 7-20 4 "
    "M122 70q18-6 36 0 M92 118q-4 4-5 10 M188 118q4 4 5 10"
)


@cache
def _style() -> Any:
    try:
        from dicebear import Style
    except ImportError as error:
        raise ModuleNotFoundError(
            f"Drawing portraits needs the rendering libraries: {installing('pretrain')}."
        ) from error
    return Style(json.loads(files("dicebear_styles").joinpath("avataaars.json").read_text("utf-8")))


def portrait_svg(person: Person) -> str:
    """Return the portrait as SVG text; the same person always gives the same text."""
    from dicebear import Avatar

    options = {
        "seed": "icm",
        "size": PORTRAIT_SIZE,
        "topVariant": person.hair,
        "hairColor": [person.hair_color],
        "facialHairVariant": person.facial_hair if person.facial_hair != "none" else "beardLight",
        "facialHairProbability": 0 if person.facial_hair == "none" else 100,
        "facialHairColor": [person.hair_color],
        "skinColor": [SKIN_COLORS[person.skin_tone]],
        "clothesVariant": person.clothes,
        "clothesColor": [person.clothes_color],
        "accessoriesVariant": person.glasses_variant,
        "accessoriesProbability": 100 if person.glasses == "glasses" else 0,
        "accessoriesColor": ["#262e33"],
        "backgroundColor": [BACKGROUND_COLORS[person.background]],
        "mouthVariant": person.mouth,
        "eyesVariant": person.eyes,
        "eyebrowsVariant": "defaultNatural",
    }
    svg = Avatar(_style(), options).to_string().replace('viewBox="0 0 280 280"', f'viewBox="{VIEW_BOX}"', 1)
    if person.age == "old":
        lines = f'<path d="{WRINKLES}" stroke="black" stroke-opacity=".38" stroke-width="3.5" stroke-linecap="round"/>'
        head, layer, rest = svg.rpartition(TOP_LAYER)
        svg = head + lines + layer + rest
    return svg


def draw_portrait(person: Person) -> np.ndarray:
    """Return the portrait as uint8 pixels [64, 64, 3]."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=portrait_svg(person), width=PORTRAIT_SIZE, height=PORTRAIT_SIZE)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
