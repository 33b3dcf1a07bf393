"""Outcomes of steering: do images show the option they were steered to, and did other attributes change?

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026.
    https://arxiv.org/abs/2604.06052
"""

import numpy as np

from icm_pipeline.arrays import Floats, Ints


def hard_labels(probabilities: Floats) -> Ints:
    """Return the most probable option of each image [n]; -1 where the judge saw nothing (NaN) or none of the options.

    None of the options: all are 0, or the classes without an option (1 - the row's sum) are together more probable than
    the best one.
    """
    blind = np.asarray(np.isnan(probabilities).any(1))
    rows = np.where(blind[:, None], 0.0, probabilities)
    best, dropped = rows.max(1), 1 - rows.sum(1)
    return np.where(dropped > best, -1, rows.argmax(1))


def one_hot_labels(probabilities: Floats) -> Floats:
    """Return 1 for the most probable option and 0 for the others [n, K]; NaN where `hard_labels` knows none."""
    labels = hard_labels(probabilities)
    return np.where(labels[:, None] < 0, np.nan, np.eye(probabilities.shape[1])[labels])


def share_obeying(probabilities: Floats, wanted: Ints) -> float:
    """Return the share of images that show the option they were steered to; unreadable images count as not."""
    return float((hard_labels(probabilities) == wanted).mean())


def share_kept(before: Floats, after: Floats) -> float:
    """Return the share of pairs whose label stayed the same, "none of the options" included.

    A pair with one unreadable side is not kept; with two it does not count. Raises ValueError if none counts.
    """
    blind, blind_after = (np.isnan(side).any(1) for side in (before, after))
    counted = ~(blind & blind_after)
    if not counted.any():
        raise ValueError("No pair has an image the judge could read.")
    same = (hard_labels(before) == hard_labels(after)) & (blind == blind_after)
    return float(same[counted].mean())
