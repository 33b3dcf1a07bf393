"""How much of a picture stayed, without learned weights (LPIPS and DISTS ship none): SSIM, of its local structure.

References:
    Image Quality Assessment: From Error Visibility to Structural Similarity, 2004. https://doi.org/10.1109/TIP.2003.819861
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from icm_pipeline.arrays import Floats

RADIUS, SIGMA = 5, 1.5  # an 11 x 11 Gaussian window
LUMINANCE, CONTRAST = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # the constants that keep flat windows finite
VIEWED_SIDE = 256  # larger pictures are averaged down to about this, as the authors advise


def structural_similarity(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return mean SSIM of two pictures [h, w, channels], 0..255: 1 if they are equal.

    Channels are compared one by one and averaged. Raises ValueError if sizes differ or a side is under 11 pixels.
    """
    if a.shape != b.shape:
        raise ValueError(f"SSIM compares pictures of one size, found {a.shape} and {b.shape}.")
    if min(a.shape[:2]) <= 2 * RADIUS:
        raise ValueError(f"SSIM needs pictures of at least {2 * RADIUS + 1} pixels a side, found {a.shape[:2]}.")
    x, y = _viewed(a), _viewed(b)
    mean_x, mean_y = _smooth(x), _smooth(y)
    variances = _smooth(x * x) - mean_x**2 + _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + LUMINANCE) * (2 * covariance + CONTRAST)
    similarity /= (mean_x**2 + mean_y**2 + LUMINANCE) * (variances + CONTRAST)
    return float(similarity.mean())


def mean_difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the mean distance of two pictures' values, 0 if they are equal, 255 at most; raises ValueError by size."""
    if a.shape != b.shape:
        raise ValueError(f"Pictures of one size are needed, found {a.shape} and {b.shape}.")
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean())


def _viewed(image: NDArray[np.uint8]) -> Floats:
    """Return the picture averaged over blocks, so that its shorter side is about `VIEWED_SIDE`."""
    block = max(1, round(min(image.shape[:2]) / VIEWED_SIDE))
    height, width = (side // block * block for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // block, block, width // block, block, -1)
    viewed: Floats = blocks.mean((1, 3), dtype=np.float64)
    return viewed


def _smooth(image: Floats) -> Floats:
    """Return windows' weighted means, where the window lies whole inside the picture."""
    smooth: Floats = gaussian_filter(image, SIGMA, radius=RADIUS, axes=(0, 1))[RADIUS:-RADIUS, RADIUS:-RADIUS]
    return smooth
