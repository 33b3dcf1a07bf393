"""Any picture file as 8-bit RGB, the right way up: what a viewer shows is what the judges see.

EXIF orientation is applied, transparency lies on white, 16 bits are scaled to 8, CMYK and palettes are converted
without colour management; of an animation it is the first frame.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

NOT_DRAWN = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # that Pillow knows and reads with a program's help at most
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # whose 16-bit greys older versions of Pillow open as 32-bit integers


class UnreadablePictureError(OSError):
    """A file that is no whole picture; the message names it and says why."""


@cache
def picture_suffixes() -> frozenset[str]:
    """Return the suffixes of the files that this Pillow reads, such as `.png`."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in known.items() if kind in {*Image.OPEN, "MPO"} - NOT_DRAWN)


def is_picture(path: Path) -> bool:
    """Say whether a file is one of Pillow's by its suffix, whatever is in it; one without a suffix is looked into."""
    if path.suffix:
        return path.suffix.lower() in picture_suffixes()
    try:
        with Image.open(path):
            return True
    except Exception:  # decoders raise whatever the bytes lead them into
        return False


def read_picture(path: Path) -> Image.Image:
    """Return a picture as RGB; raises UnreadablePictureError for a file that is missing, empty, cut short or none."""
    try:
        with Image.open(path) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image), image.format)
    except Exception as error:  # decoders raise whatever the damaged bytes lead them into
        raise UnreadablePictureError(f"{path} cannot be read: {_reason(path, error)}") from error


def problem_of(path: Path) -> str:
    """Return why a file cannot be read as a picture, empty if it can; decodes all of it."""
    try:
        read_picture(path)
    except UnreadablePictureError as error:
        assert error.__cause__ is not None
        return _reason(path, error.__cause__)
    return ""


def _to_rgb(image: Any, file_format: str | None) -> Image.Image:
    if image.mode in SIXTEEN_BIT or (image.mode == "I" and file_format in SIXTEEN_BIT_FORMATS):
        grey = np.asarray(image).astype(np.float64) / 257  # 65535 is 255
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32-bit values have no known range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels).convert("RGB")
    converted: Image.Image = image.convert("RGB")
    return converted


def _reason(path: Path, error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__
