"""SSIM against a slow direct computation, and its limits."""

import math

import numpy as np
import pytest

from icm_pipeline.metrics.structure import mean_difference, structural_similarity

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (16, 14, 3), dtype=np.uint8)
NOISY = np.clip(PICTURE + RNG.normal(0, 40, PICTURE.shape), 0, 255).astype(np.uint8)


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Compute window by window, as the paper's equation 13 stands."""
    window = [[math.exp(-(y * y + x * x) / (2 * 1.5**2)) for x in range(-5, 6)] for y in range(-5, 6)]
    weights = np.array(window) / np.sum(window)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(a.shape[2]):
        for y in range(a.shape[0] - 10):
            for x in range(a.shape[1] - 10):
                p, q = (side[y : y + 11, x : x + 11, channel].astype(float) for side in (a, b))
                mp, mq = (weights * p).sum(), (weights * q).sum()
                vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
                cov = (weights * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def test_ssim_is_the_published_equation() -> None:
    assert structural_similarity(PICTURE, NOISY) == pytest.approx(slow_ssim(PICTURE, NOISY), abs=1e-9)


def test_a_picture_is_like_itself_and_unlike_its_negative() -> None:
    assert structural_similarity(PICTURE, PICTURE) == pytest.approx(1)
    assert structural_similarity(PICTURE, 255 - PICTURE) < 0


def test_a_large_picture_is_looked_at_from_further_away() -> None:
    enlarged = [side.repeat(32, 0).repeat(32, 1) for side in (PICTURE, NOISY)]  # 512 x 448: averaged over 2 x 2
    halved = [side.repeat(16, 0).repeat(16, 1) for side in (PICTURE, NOISY)]
    assert structural_similarity(*enlarged) == pytest.approx(structural_similarity(*halved))


def test_pictures_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        structural_similarity(PICTURE, PICTURE[:12])


def test_a_picture_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="11 pixels"):
        structural_similarity(PICTURE[:10], NOISY[:10])


def test_the_mean_difference_is_that_of_the_values_whichever_is_larger() -> None:
    light, dark = np.full((2, 2, 3), 250, np.uint8), np.full((2, 2, 3), 5, np.uint8)
    assert mean_difference(light, dark) == mean_difference(dark, light) == 245
    assert mean_difference(light, light) == 0


def test_no_mean_difference_of_pictures_of_different_sizes() -> None:
    with pytest.raises(ValueError, match="one size"):
        mean_difference(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 1, 3), np.uint8))
