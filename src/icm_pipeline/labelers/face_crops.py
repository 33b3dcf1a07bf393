"""An upright square picture of a face from five landmarks, as dlib's `get_face_chip` cuts it.

The mean face and the geometry are those of dlib (King, "Dlib-ml: A Machine Learning Toolkit", JMLR 2009; file
dlib/image_transforms/interpolation.h), so that judges trained on dlib's crops see what they were trained on.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from icm_pipeline.arrays import Floats

# Corners of the eye on the right of the picture (outer, inner), on its left (outer, inner), and below the nose.
MEAN_FACE = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
BLUR = np.array([1, 4, 6, 4, 1]) / 16  # dlib's pyramid halves a picture after this filter
HALVING_OFFSET = np.array([1.25, 0.75])  # and maps the point (x, y) to half of it less this


def crop_face(image: Image.Image, landmarks: Floats, size: int, padding: float) -> Image.Image:
    """Cut a face out: [size, size] RGB, turned upright, black where it lies outside the picture.

    landmarks: [5, 2] pixels (x, y) in dlib's order; padding: margin in shares of the face's width. Raises ValueError if
    the face lies outside the picture.
    """
    scale, angle, centre = _placement(landmarks, size, padding)
    width, margin, halvings = size * scale - 1, 2, 0
    while width / 2**halvings / 2 + 1 > size:
        margin, halvings = 2 * margin + 2, halvings + 1
    corners = _surroundings(image.size, centre, width, angle, margin)
    pixels, centre = np.asarray(image.convert("RGB").crop(corners), dtype=np.float32), centre - corners[:2]
    for _ in range(halvings):
        if min(pixels.shape[:2]) >= len(BLUR):
            pixels, width, centre = _halved(pixels), width / 2, centre / 2 - HALVING_OFFSET
    offsets = (np.arange(size) - (size - 1) / 2) * width / (size - 1)
    across, down = np.meshgrid(offsets, offsets)
    x = centre[0] + np.cos(angle) * across - np.sin(angle) * down
    y = centre[1] + np.sin(angle) * across + np.cos(angle) * down
    return Image.fromarray(_bilinear(pixels, x, y))


def _placement(landmarks: Floats, size: int, padding: float) -> tuple[float, float, Floats]:
    """Return the similarity from the crop to the picture: scale, angle in radians, and where the crop's centre lies."""
    expected = (padding + MEAN_FACE) / (2 * padding + 1) * size
    source, target = expected - expected.mean(0), landmarks - landmarks.mean(0)
    real = (source * target).sum() / (source**2).sum()
    turned = (source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum() / (source**2).sum()
    rotation = np.array([[real, -turned], [turned, real]])
    centre = rotation @ (np.full(2, size / 2) - expected.mean(0)) + landmarks.mean(0)
    return float(np.hypot(real, turned)), float(np.arctan2(turned, real)), centre


def _surroundings(
    size: tuple[int, int], centre: Floats, width: float, angle: float, margin: int
) -> tuple[int, int, int, int]:
    """Return the part of the picture (left, top, right, bottom) that a turned square of this width and a margin covers.

    Raises ValueError if the square lies outside the picture.
    """
    reach = width / 2 * (abs(np.cos(angle)) + abs(np.sin(angle))) + margin
    left, top = (int(max(0, np.floor(value - reach + 0.5))) for value in centre)
    right, bottom = (
        int(min(edge, np.floor(value + reach + 0.5) + 1)) for value, edge in zip(centre, size, strict=True)
    )
    if right - left < len(BLUR) or bottom - top < len(BLUR):
        raise ValueError(f"The landmarks of a face around ({centre[0]:.0f}, {centre[1]:.0f}) lie outside the picture.")
    return left, top, right, bottom


def _halved(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a picture [h, w, 3] blurred and of half the size; the first pixel kept is the third."""
    for axis in (0, 1):
        length = pixels.shape[axis] - len(BLUR) + 1
        pixels = sum(
            weight * pixels.take(np.arange(start, start + length, 2), axis)
            for start, weight in enumerate(BLUR.astype(np.float32))
        )
    return np.floor(pixels)


def _bilinear(pixels: NDArray[np.float32], x: Floats, y: Floats) -> NDArray[np.uint8]:
    """Return the picture at points x, y [size, size], black outside."""
    height, width = pixels.shape[:2]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    inside = (left >= 0) & (top >= 0) & (left + 1 < width) & (top + 1 < height)
    left, top = np.where(inside, left, 0), np.where(inside, top, 0)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    upper = (1 - across) * pixels[top, left] + across * pixels[top, right]
    lower = (1 - across) * pixels[bottom, left] + across * pixels[bottom, right]
    mixed = (1 - down) * upper + down * lower
    return np.where(inside[..., None], np.clip(mixed, 0, 255), 0).astype(np.uint8)
