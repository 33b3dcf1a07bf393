"""What became of the images: did they show the option they were steered to, and did other attributes change?"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def hard_labels(probabilities: Floats) -> Ints:
    """Return the most probable option of each image [n], -1 where the judge saw nothing (NaN) or none (zeros)."""
    unseen = np.asarray(np.isnan(probabilities).any(1) | ~probabilities.any(1))
    return np.where(unseen, -1, np.where(unseen[:, None], 0.0, probabilities).argmax(1))


def one_hot_labels(probabilities: Floats) -> Floats:
    """Return 1 for the most probable option and 0 for the others [n, K]; NaN where `hard_labels` knows none."""
    labels = hard_labels(probabilities)
    return np.where(labels[:, None] < 0, np.nan, np.eye(probabilities.shape[1])[labels])


def share_obeying(probabilities: Floats, wanted: Ints) -> float:
    """Return the share of images that show the option they were steered to; an image nobody can read does not."""
    return float((hard_labels(probabilities) == wanted).mean())


def share_kept(before: Floats, after: Floats) -> float:
    """Return the share of pairs whose most probable option stayed the same; a pair nobody can read does not count."""
    a, b = hard_labels(before), hard_labels(after)
    seen = (a >= 0) | (b >= 0)
    if not seen.any():
        raise ValueError("No pair has an image the judge could read.")
    return float((a == b)[seen].mean())
