"""How sure the accuracy of probes is, when images, or whole prompts, are drawn again.

What is averaged is one number per image, so that the steps, layers and splits of an image are never taken for
independent. Splits share training images, which resampling held-out images does not show: where there is little to
tell, how an image is told hangs on another as much as that one's on it. Intervals of what probes tell are therefore
widened by what Nadeau and Bengio's correction comes to with 20 splits that hold out a fifth, (1/20 + 1/4) / (1/5) in
variance (`WIDENING`): simulated, they then cover 92 % where nothing is told and 99 % where much is.

References:
    Inference for the Generalization Error, 2003. https://doi.org/10.1023/A:1024068626366
    Bootstrap-based improvements for inference with clustered errors, 2008. https://doi.org/10.1162/rest.90.3.414
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from icm_pipeline.arrays import Floats, Ints

LEVEL = 0.95
WIDENING = 1.5**0.5


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error, and how many units that was estimated from."""

    value: float
    error: float
    num: int

    @property
    def interval_95(self) -> tuple[float, float]:
        """Student's t with a degree of freedom for every unit but one."""
        reach = float(stats.t.ppf((1 + LEVEL) / 2, self.num - 1)) * self.error
        return self.value - reach, self.value + reach

    def p_above(self, null: float) -> float:
        """Return the one-sided probability of a figure so far above `null`."""
        if not self.error:
            return 0.0 if self.value > null else 1.0
        return float(stats.t.sf((self.value - null) / self.error, self.num - 1))

    def scaled(self, factor: float) -> "Estimate":
        return Estimate(self.value * factor, self.error * abs(factor), self.num)

    def less(self, other: "Estimate") -> "Estimate":
        """Return the difference to a figure of other, independent units."""
        error = float(np.hypot(self.error, other.error))
        return Estimate(self.value - other.value, error, min(self.num, other.num))


def balanced_means(values: Floats, labels: Ints) -> Floats:
    """Return the mean over options of the mean over the images that show it; values [..., n], NaN for no figure.

    Of a share that was told right it is balanced accuracy, whose chance is 1 / options however unequal they are.
    """
    means = [np.nanmean(values[..., labels == option], axis=-1) for option in np.unique(labels)]
    balanced: Floats = np.nanmean(means, axis=0)  # as a split of few images holds out none of a rare option
    return balanced


def pseudo_values(values: Floats, labels: Ints) -> Floats:
    """Return numbers whose plain mean is the balanced mean of values [n], and what each image adds to its error.

    So two balanced means over the same images, of different labels, can be subtracted image by image.
    """
    _, members, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.bincount(members, values) / sizes
    weights = len(values) / (len(sizes) * sizes[members])
    return balanced_means(values, labels) + weights * (values - means[members])


def clustered(
    values: Floats, labels: Ints, groups: Ints, num_resamples: int, rng: np.random.Generator, widening: float = WIDENING
) -> list[Estimate]:
    """Return the balanced mean of each row of values [m, n] with its error when groups of images are drawn again.

    groups [n]: the prompt of each image, or a number of its own. widening: of errors, 1 for values that are no probes'.
    Images without a figure (NaN) in any row do not count. All rows see the same draws.
    """
    there = np.isfinite(values).all(axis=0)
    values, labels = values[:, there], labels[there]
    names, members = np.unique(groups[there], return_inverse=True)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), num_resamples).T.astype(float)  # [G, R]
    resampled = _balanced_means_of(counts, values, labels, members)
    wider = widening * np.sqrt(len(names) / max(1, len(names) - 1))
    errors = np.maximum(np.nanstd(resampled, axis=1) * wider, 0.0)
    found = balanced_means(values, labels)
    return [Estimate(float(value), float(error), len(names)) for value, error in zip(found, errors, strict=True)]


def resampled_means(values: Floats, labels: Ints, groups: Ints, num_resamples: int, rng: np.random.Generator) -> Floats:
    """Return the balanced means [m, R] of values [m, n], none of them NaN, when groups of images are drawn again."""
    names, members = np.unique(groups, return_inverse=True)
    draws = rng.integers(len(names), size=(num_resamples, len(names)))
    counts = np.stack([np.bincount(drawn, minlength=len(names)) for drawn in draws], axis=1)
    return _balanced_means_of(counts, values, labels, members)


def _balanced_means_of(counts: Floats | Ints, values: Floats, labels: Ints, members: Ints) -> Floats:
    """Return the balanced means [m, R] of values [m, n] in which each group counts so often, [G, R].

    members [n]: the group of each image. NaN where no image of any option counts.
    """
    means = []
    for option in np.unique(labels):
        rows = np.flatnonzero(labels == option)
        sums = np.zeros((len(counts), len(values)))
        np.add.at(sums, members[rows], values[:, rows].T)
        sizes = np.bincount(members[rows], minlength=len(counts))
        drawn = sizes @ counts  # 0 where no image of the option was drawn
        means.append(np.divide(sums.T @ counts, drawn, out=np.full((len(values), len(drawn)), np.nan), where=drawn > 0))
    balanced: Floats = np.nanmean(means, axis=0)
    return balanced


def best_on_other_half(
    values: Floats, labels: Ints, groups: Ints, num_halvings: int, rng: np.random.Generator, taken: Floats | None = None
) -> Floats:
    """Return for each image [n] the value of the row of values [m, n] that is best on images of other groups.

    Groups are halved at random: the row with the largest balanced mean on one half gives the values of the other, and
    the other way; averaged over halvings, so that being chosen for its luck helps no row. taken [m, n]: what the chosen
    row gives instead of its values.
    """
    names, members = np.unique(groups, return_inverse=True)
    taken, total = values if taken is None else taken, np.zeros(len(labels))
    for _ in range(num_halvings):
        first = np.isin(members, rng.permutation(len(names))[: len(names) // 2])
        for half in (first, ~first):
            best = int(np.nanargmax(balanced_means(values[:, half], labels[half])))
            total[~half] += taken[best, ~half]
    return total / num_halvings
