"""Pictures the judges' tests look at: noise, and the portrait that scikit-image ships."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def noise(count: int, size: tuple[int, int] = (64, 64)) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)) for _ in range(count)]


def portrait() -> Image.Image:
    """Return the 512 px photograph of an astronaut (a woman of 36), or skip the test."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-image, which ships the portrait, is not installed")
    with Image.open(Path(spec.origin).parent / "data" / "astronaut.png") as image:
        return image.convert("RGB")


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [package for package in packages if find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
