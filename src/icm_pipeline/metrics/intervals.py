"""Intervals of FD and of its change, by resampling images within each prompt.

References:
    Construction of confidence limits about effect measures: a general approach (MOVER), 2008.
    https://doi.org/10.1002/sim.3095
    Test inversion bootstrap confidence intervals, 1999. https://doi.org/10.1111/1467-9868.00169
    The use of confidence or fiducial limits illustrated in the case of the binomial, 1934.
    https://doi.org/10.1093/biomet/26.4.404
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from icm_pipeline.arrays import Bools, Floats, Ints
from icm_pipeline.metrics.distributions import Target, target_of
from icm_pipeline.metrics.least_change import Choosing, means_of_strata, shares_drawn, strata_of

ROUNDING = 1e-12  # of figures; less is no difference
RATE = 1e-6  # of failures, to which it is found


def bootstrap_interval(
    probabilities: Floats,
    prompts: list[str],
    num_resamples: int,
    rng: np.random.Generator,
    target: Target | None = None,
    level: float = 0.95,
    strata: Ints | None = None,
    by: Choosing | None = None,
) -> tuple[float, float]:
    """Return the interval of mean FD under resampling the recognisable images within each prompt.

    strata: a number per image [n]; images are resampled among those of their prompt and stratum. Where the experiment
    fixes how many images are steered to each option, give the option. by: where images got the option that they showed
    before as far as that went, by what that was chosen; see `metrics.least_change`. See `_interval`.
    """
    seen = np.logical_not(np.isnan(probabilities).any(axis=1))
    (resampled,) = _resample([probabilities], seen, prompts, num_resamples, rng, target, strata, by)
    return _interval(resampled, level, None if strata is None else rng)


def paired_change(
    before: Floats,
    after: Floats,
    prompts: list[str],
    num_resamples: int,
    rng: np.random.Generator,
    target: Target | None = None,
    level: float = 0.95,
    strata: Ints | None = None,
    by: Choosing | None = None,
) -> tuple[float, tuple[float, float]]:
    """Return mean FD of `after` minus mean FD of `before`, both [n, K] with row i from one seed, and its interval.

    Each resample draws image ids once, within each prompt (and as `bootstrap_interval` says), and takes both sides of
    them, so what twins share cancels. The limits of both sides are joined by their distances from the figures
    and the correlation of the resampled figures (MOVER). Pairs with a side that the judge could not see are left out.
    Raises ValueError for a prompt without a pair.
    """
    if before.shape != after.shape:
        raise ValueError(f"Pairs need equally many images and options, found {before.shape} and {after.shape}.")
    seen = np.logical_not(np.isnan(before + after).any(axis=1))
    sides = _resample([before, after], seen, prompts, num_resamples, rng, target, strata, by)
    (b, a), (values_b, values_a) = (side.figure for side in sides), (side.figures() for side in sides)
    change = a - b
    same = strata is None or np.array_equal(before[seen], after[seen])
    if np.ptp(values_a - values_b) < ROUNDING and same:
        return change, (change, change)
    (low_b, high_b) = _interval(sides[0], level)
    (low_a, high_a) = _interval(sides[1], level, None if strata is None else rng)
    vary = min(np.ptp(values_a), np.ptp(values_b)) > ROUNDING
    shared = float(np.corrcoef(values_a, values_b)[0, 1]) if vary else 0.0
    return change, (change - _joined(a - low_a, high_b - b, shared), change + _joined(high_a - a, b - low_b, shared))


@dataclass(frozen=True)
class _Resampled:
    deviations: Floats
    """The mean row of every prompt less the target, [P, K]."""
    errors: Floats
    """Of the deviations, in each resample, [R, P, K]."""
    num_images: Ints
    """Of every prompt, that were seen [P]."""
    farthest: Floats
    """The largest FD there is of every prompt, that of images that all show one option [P]."""

    @property
    def most(self) -> float:
        """The largest mean FD there is."""
        return float(self.farthest.mean())

    @property
    def unknown(self) -> tuple[float, float]:
        """How far below and above prompts of a single image could lie, of whose other images it says nothing."""
        fds, alone = np.linalg.norm(self.deviations, axis=1), self.num_images == 1
        return float((alone * fds).mean()), float((alone * (self.farthest - fds)).mean())

    @property
    def figure(self) -> float:
        """Mean FD over prompts."""
        return float(np.linalg.norm(self.deviations, axis=1).mean())

    def figures(self, scale: float = 1.0) -> Floats:
        """Return mean FD of each resample [R] if the deviations were `scale` times as large."""
        figures: Floats = np.linalg.norm(scale * self.deviations + self.errors, axis=2).mean(1)
        return figures


def _resample(
    sides: list[Floats],
    seen: Bools,
    prompts: list[str],
    num_resamples: int,
    rng: np.random.Generator,
    target: Target | None,
    strata: Ints | None,
    by: Choosing | None,
) -> list[_Resampled]:
    """Resample the seen images within every prompt and stratum, the same ones for all sides [n, K].

    Errors among m images are multiplied by sqrt(m / (m - 1)), which makes their variance unbiased. Of one image alone
    there is none to see: see `_pooled`. Those of `by` stay apart, as how many there are of each is drawn anew.
    """
    names, rows = list(dict.fromkeys(prompts)), np.array(prompts)
    wanted = np.zeros(len(rows), np.int64) if strata is None else strata
    strata = wanted if by is None else strata_of(wanted, by)
    num_options = sides[0].shape[1]
    goals = np.stack([target_of(target, prompt, num_options) for prompt in names])
    deviations = [np.empty((len(names), num_options)) for _ in sides]
    errors = [np.zeros((num_resamples, len(names), num_options)) for _ in sides]
    num_images = np.empty(len(names), np.int64)
    for index, prompt in enumerate(names):
        members = np.flatnonzero((rows == prompt) & seen)
        if not len(members):
            raise ValueError(f"The judge could see no image, or no pair, of {prompt!r}.")
        num_images[index] = len(members)
        for side, rows_of in enumerate(sides):
            deviations[side][index] = rows_of[members].mean(0) - goals[index]
        own = _pooled(strata[members]) if by is None else strata[members]
        for stratum in np.unique(own):
            group = members[own == stratum]
            drawn = rng.choice(group, (num_resamples, len(group)))
            weight = len(group) / len(members) * np.sqrt(len(group) / max(1, len(group) - 1))
            for side, rows_of in enumerate(sides):
                errors[side][:, index] += weight * (rows_of[drawn].mean(1) - rows_of[group].mean(0))
        if by is not None:
            moved = shares_drawn(wanted[members], by.of(members), num_options, num_resamples, rng)
            for side, rows_of in enumerate(sides):
                errors[side][:, index] += moved @ means_of_strata(rows_of[members], strata[members], num_options)
    farthest = np.linalg.norm(np.eye(num_options) - goals[:, None], axis=2).max(1)
    return [_Resampled(*parts, num_images, farthest) for parts in zip(deviations, errors, strict=True)]


def _pooled(strata: Ints) -> Ints:
    """Return a prompt's strata [n] with those of one image pooled, a single one with the smallest other.

    What pooled strata differ by counts as chance then: their interval is rather long than none.
    """
    values, counts = np.unique(strata, return_counts=True)
    single = values[counts == 1]
    if len(single) == 1:
        single = values[np.argsort(counts, kind="stable")[:2]]
    pooled: Ints = np.where(np.isin(strata, single), single[0], strata) if len(single) else strata
    return pooled


def _interval(resampled: _Resampled, level: float, rng: np.random.Generator | None = None) -> tuple[float, float]:
    """Return the interval of mean FD, which contains the figure; rng: where images were steered to fixed numbers.

    A norm is biased upwards near zero, so percentiles of resampled FDs lie too high where FD is small. The limits are
    instead the FDs of which the figure would be an upper and a lower quantile, found by scaling the deviations (test
    inversion); 0 if FD 0 could give the figure. The upper limit is at least the resamples' own quantile less their
    bias, with rng that of `_with_failures` too, and at most the largest FD there is. Of a prompt of a single image any
    FD is inside.
    """
    tail, figure, values = (1 - level) / 2, resampled.figure, resampled.figures()
    shifted = float(np.quantile(values, 1 - tail) - values.mean()) + figure
    low, high = (figure * _scale(resampled, figure, share) for share in (1 - tail, tail))
    if rng is not None:
        high = max(high, _with_failures(resampled, figure, tail, rng))
    below, above = resampled.unknown
    return max(0.0, min(low, figure) - below), max(min(max(high, shifted) + above, resampled.most), figure)


def _with_failures(resampled: _Resampled, figure: float, tail: float, rng: np.random.Generator) -> float:
    """Return the FD at which the figure would be a lower quantile, were more images of every prompt to fail.

    Resampling cannot draw what was not seen: where no image failed it shows no doubt. So failures are added, at one
    rate per image and independently (Poisson), each of which moves its prompt from the option it has too few of to the
    one that it has too many of. Of x failures that is the exact upper limit of Clopper and Pearson: where FD is 0, that
    of 3.7 failures among all images. They are added to deviations of which the figure is the median.
    """
    start, seed = _scale(resampled, figure, 0.5) * resampled.deviations, rng.integers(2**32)
    order = np.argsort(start, axis=1, kind="stable")
    num_options = start.shape[1]
    away = np.eye(num_options)[order[:, -1]] - np.eye(num_options)[order[:, 0]]

    def share_below(rate: float) -> float:
        failures = np.random.default_rng(seed).poisson(rate * resampled.num_images, resampled.errors.shape[:2])
        added = failures / resampled.num_images
        figures = np.linalg.norm(start + added[..., None] * away + resampled.errors, axis=2).mean(1)
        return float((figures <= figure + ROUNDING).mean())

    low, high = 0.0, 1.0
    while high - low > RATE:
        middle = (low + high) / 2
        low, high = (middle, high) if share_below(middle) > tail else (low, middle)
    return float(np.linalg.norm(start + low * away + resampled.errors.mean(0), axis=1).mean())


def _scale(resampled: _Resampled, figure: float, share: float) -> float:
    """Return the factor of the deviations at which the figure is this quantile of the resamples; 0 at least."""

    def excess(scale: float) -> float:
        return float(np.quantile(resampled.figures(scale), share)) - figure

    if excess(0.0) >= 0:
        return 0.0
    longest = float(np.linalg.norm(resampled.errors, axis=2).mean(1).max())
    return float(brentq(excess, 0.0, 2 + longest / figure))


def _joined(one: float, other: float, correlation: float) -> float:
    return float(np.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other)))
