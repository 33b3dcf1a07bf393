"""The difference of two pictures is dark where they are the same, and a picture as text is that picture."""

import base64
import io

import numpy as np
from PIL import Image

from icm_pipeline.explore.pictures import data_uri, difference


def test_equal_pictures_differ_nowhere_and_changed_places_are_bright() -> None:
    before = Image.new("RGB", (4, 4), "white")
    after = before.copy()
    after.putpixel((3, 0), (0, 0, 0))
    found = np.asarray(difference(before, after), int).sum(axis=2)
    assert found[0, 3] > 600
    assert np.delete(found.ravel(), 3).max() < 10


def test_a_small_picture_is_kept_to_the_bit_and_a_large_one_is_packed() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    kind, packed = data_uri(Image.fromarray(noise)).split(";base64,")
    assert kind == "data:image/png"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(packed)))) == noise).all()
    assert data_uri(Image.new("RGB", (512, 512))).startswith("data:image/webp")
