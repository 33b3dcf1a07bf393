"""Small copies of pictures, as text in a page: each is kept once, however often it is shown."""

import base64
from io import BytesIO
from pathlib import Path

from PIL import Image, features

from icm_pipeline.images.pictures import read_picture
from icm_pipeline.store.files import hash_file

MOST_PIXELS = 192  # of a side; sharp at the 96 pixels that a picture takes in a page, on a screen of twice as many
QUALITY = 80


class Thumbnails:
    """The pictures of a page, by short names."""

    def __init__(self) -> None:
        self.uris: dict[str, str] = {}
        """Data URIs by name."""
        self._named: dict[str, str] = {}  # the names by the hash of a file

    def add(self, path: Path) -> str:
        """Return the name of a picture file; raises UnreadablePictureError, an OSError, if it cannot be read."""
        digest = hash_file(path) if path.is_file() else ""
        if digest not in self._named:
            uri = data_uri(_reduced(read_picture(path)))
            self._named[digest] = name = f"p{len(self.uris)}"
            self.uris[name] = uri
        return self._named[digest]


def data_uri(image: Image.Image, lossless: bool = False) -> str:
    """Return a picture as a data URI: WebP, or where this Pillow has none, JPEG or PNG."""
    kind = "WEBP" if features.check("webp") else "PNG" if lossless else "JPEG"
    buffer = BytesIO()
    image.save(buffer, kind, quality=100 if lossless else QUALITY, lossless=lossless)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _reduced(image: Image.Image) -> Image.Image:
    image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return image
