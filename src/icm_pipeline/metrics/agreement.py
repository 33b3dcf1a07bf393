"""Do two judges see the same? Confusion table, share of agreement, and Cohen's kappa (Cohen 1960)."""

import numpy as np

from icm_pipeline.arrays import Ints


def confusion_table(first: Ints, second: Ints, num_options: int) -> Ints:
    """Return counts [K, K]: row, what the first judge said; column, the second. Labels of -1 (unseen) do not count.

    Raises ValueError if the judges did not label equally many images.
    """
    if first.shape != second.shape:
        raise ValueError(f"Judges must label the same images, found {len(first)} and {len(second)} labels.")
    seen = (first >= 0) & (second >= 0)
    table = np.zeros((num_options, num_options), np.int64)
    np.add.at(table, (first[seen], second[seen]), 1)
    return table


def share_agreeing(table: Ints) -> float | None:
    """Return the share of images on which both say the same; None without images."""
    return float(np.trace(table) / table.sum()) if table.sum() else None


def cohens_kappa(table: Ints) -> float | None:
    """Return agreement beyond chance: 1 always, 0 as often as chance would.

    None where it is not defined: no images, or both judges say one and the same of all.
    """
    total = table.sum()
    if not total:
        return None
    by_chance = float(table.sum(1) @ table.sum(0)) / float(total) ** 2
    if by_chance == 1:
        return None
    return float((np.trace(table) / total - by_chance) / (1 - by_chance))
