"""Pictures as the page shows them: the difference of two, and a picture as text that a page holds."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

GAIN = 3.0  # of differences, so that a changed beard is seen beside an unchanged wall
LOSSLESS = 128 * 128  # pixels; larger pictures are packed as WebP, a twentieth of PNG's size


def difference(before: Any, after: Any) -> Any:
    """Return where and how far two pictures differ, dark where they do not: a third of full range is brightest."""
    import matplotlib

    pixels = [np.asarray(picture.convert("RGB"), np.float64) / 255 for picture in (before, after)]
    apart = np.abs(pixels[1] - pixels[0]).mean(axis=2)
    coloured = matplotlib.colormaps["inferno"](np.clip(GAIN * apart, 0, 1))[..., :3]
    return Image.fromarray(np.rint(255 * coloured).astype(np.uint8))


def data_uri(picture: Any) -> str:
    """Return a picture as an address that holds it whole, so that a page needs no file."""
    packed, kind = io.BytesIO(), "png" if picture.width * picture.height <= LOSSLESS else "webp"
    picture.save(packed, format=kind, **({} if kind == "png" else {"quality": 90}))
    return f"data:image/{kind};base64,{base64.b64encode(packed.getvalue()).decode('ascii')}"
