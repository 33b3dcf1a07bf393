"""Do two judges see the same?

References:
    A Coefficient of Agreement for Nominal Scales, 1960. https://doi.org/10.1177/001316446002000104
"""

import numpy as np

from icm_pipeline.arrays import Ints


def agreement(first: Ints, second: Ints, num_options: int) -> tuple[Ints, float | None, float | None]:
    """Return the confusion table [K, K] (row: the first judge), the share of agreement, and Cohen's kappa.

    Images that a judge labelled -1 (unseen) do not count. The share is None without images; so is kappa, and also where
    both judges say one and the same of all. Raises ValueError if the judges did not label equally many images.
    """
    from sklearn.metrics import cohen_kappa_score, confusion_matrix

    if first.shape != second.shape:
        raise ValueError(f"Judges must label the same images, found {len(first)} and {len(second)} labels.")
    seen = (first >= 0) & (second >= 0)
    first, second = first[seen], second[seen]
    if not len(first):
        return np.zeros((num_options, num_options), np.int64), None, None
    kappa = float(cohen_kappa_score(first, second)) if len(np.union1d(first, second)) > 1 else None
    return confusion_matrix(first, second, labels=range(num_options)), float((first == second).mean()), kappa
