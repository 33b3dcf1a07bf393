"""How sure a mean over arms is, where each arm has some of the images and each image is in some of the arms.

An image is the same in all its arms, and an arm the same for all its images. So the variance is that by images, plus
that by arms, less that of single cells, which both contain (two-way clustering). Where a cell is
mean + arm + image + rest, it comes to s_arm^2 / arms + s_image^2 sum(n_i^2) / cells^2 + s_rest^2 / cells with n_i arms
of image i, whichever arms these are. Images are compared within their strata, which the design fixes.

References:
    Robust Inference With Multiway Clustering, 2011. https://doi.org/10.1198/jbes.2010.07136
    Satterthwaite, An Approximate Distribution of Estimates of Variance Components, 1946.
    https://doi.org/10.2307/3002019
    Weerahandi, Generalized Confidence Intervals, 1993. https://doi.org/10.1080/01621459.1993.10476355
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.metrics.resampling import LEVEL, Estimate


@dataclass(frozen=True)
class ArmsMean:
    """The mean over arms of the mean over their images, with the parts of its variance."""

    arms: Floats
    """[S], the mean of each arm's images."""
    by_images: float
    between: float
    """The variance that the spread of the arms' means shows."""
    within: float
    """What part of that comes from their having other images."""
    num_images: int
    num_strata: int

    @property
    def value(self) -> float:
        return float(self.arms.mean()) if len(self.arms) else np.nan

    @property
    def deviation(self) -> float:
        """By how much arms differ in truth: the deviation of what each would come to with endless images."""
        return float(np.sqrt(len(self.arms) * max(0.0, self.between - self.within)))

    @property
    def estimate(self) -> Estimate:
        """The mean with its error and Satterthwaite's degrees of freedom; it is at least what one image hides.

        NaN where there is no image.
        """
        if not self.num_images:
            return Estimate(np.nan, np.nan, 2)
        variance = self.by_images + max(0.0, self.between - self.within)
        parts = self.by_images**2 / max(1, self.num_images - self.num_strata)
        parts += self.between**2 / max(1, len(self.arms) - 1)
        freedom = variance**2 / parts if parts else self.num_images - 1
        return Estimate(self.value, max(float(np.sqrt(variance)), 1 / self.num_images), 1 + max(1, int(freedom)))


def arms_mean(values: Floats, strata: Ints) -> ArmsMean:
    """Return the mean over arms of values [S, n], NaN where an arm has no image; strata [n]: what the design fixes.

    The values may be any whose mean is an arm's figure and whose spread is that of the figure to first order.
    """
    values = values[np.isfinite(values).any(1)]
    if not len(values):
        return ArmsMean(values.mean(1), 0.0, 0.0, 0.0, 0, 0)
    there = np.isfinite(values)
    sizes = there.sum(1)
    arms = np.nansum(values, 1) / sizes
    cells = there / (sizes[:, None] * len(values))
    rest = np.where(there, values - arms[:, None], 0.0)
    by_images, num_strata = 0.0, 0
    for stratum in np.unique(strata[there.any(0)]):
        members = (strata == stratum) & there.any(0)
        own = cells[:, members]
        rest[:, members] -= np.where(there[:, members], (own * rest[:, members]).sum() / own.sum(), 0.0)
        count, num_strata = int(members.sum()), num_strata + 1
        by_images += count / max(1, count - 1) * float(((own * rest[:, members]).sum(0) ** 2).sum())
    shrunk = float(np.mean(sizes / np.maximum(1, sizes - 1)))  # an arm's mean is taken off its own images
    between = float(arms.var(ddof=1) / len(arms)) if len(arms) > 1 else 0.0
    within = shrunk * float(((cells * rest) ** 2).sum())
    return ArmsMean(arms, shrunk * by_images, between, within, int(there.any(0).sum()), num_strata)


def post_stratified(values: Floats, groups: Ints) -> Floats:
    """Return values [S, n] whose mean in each arm is that of groups of images [n], each counted as often as in all.

    So arms do not differ by having more images of one group than of another. NaN where an arm has no image; the spread
    is that of the mean to first order. An arm with fewer than two images of a group stays as it is.
    """
    found, used = values.copy(), np.isfinite(values).any(0)
    names, sizes = np.unique(groups[used], return_counts=True)
    for row in found:
        members = [np.isfinite(row) & (groups == name) for name in names]
        counts = np.array([own.sum() for own in members])
        if len(counts) and counts.min() > 1:
            weights, means = sizes / sizes.sum(), np.array([row[own].mean() for own in members])
            lost = np.sqrt(counts / (counts - 1) * (counts.sum() - 1) / counts.sum())  # of spread, by each mean
            for own, mean, factor in zip(members, means, lost * weights * counts.sum() / counts, strict=True):
                row[own] = weights @ means + factor * (row[own] - mean)
    return found


def discrepancy_parts(shown: Floats, prompts: Ints, wanted: Ints) -> Floats:
    """Return numbers [n] whose mean is FD, and their spread to first order its own; NaN for images that are not seen.

    shown [n, K]: held against what the images of the prompt are pushed to (wanted [n]), so that FD of all obedient
    ones is 0; the mean over prompts [n], as `metrics.fairness`.
    """
    there, parts = np.isfinite(shown).all(-1), np.full(len(shown), np.nan)
    missed, names, fds = shown - np.eye(shown.shape[-1])[wanted], np.unique(prompts[there]), list[float]()
    for prompt in names:
        rows = np.flatnonzero(there & (prompts == prompt))
        mean = missed[rows].mean(0)
        fds.append(float(np.linalg.norm(mean)))
        towards = mean / max(fds[-1], 1e-12)
        parts[rows] = (missed[rows] - mean) @ towards * there.sum() / (len(names) * len(rows))
    return parts + (np.mean(fds) if fds else np.nan)


@dataclass(frozen=True)
class Place:
    """What share of arms something leads."""

    value: float
    interval_95: tuple[float, float]
    p: float


def place_among(lead: ArmsMean, arms: ArmsMean, null: float, num_draws: int, rng: np.random.Generator) -> Place:
    """Return the share of all arms there could be that is led, by a lead over their mean; p: that it is only `null`.

    Arms are taken for draws from a normal distribution whose deviation is what their means spread by, less what their
    images explain. The interval is of draws of the deviation and of the lead (a generalized confidence interval).
    arms: the same arms by themselves, which images that are held against others make less sure.
    """
    freedom = len(arms.arms) - 1
    beyond = np.maximum(0.0, arms.between * freedom / rng.chisquare(freedom, num_draws) - arms.within)
    errors, deviations = np.sqrt(lead.by_images + beyond), np.sqrt(len(arms.arms) * beyond)
    low, high = np.quantile(_led(rng.normal(lead.value, errors), deviations), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    p = float(stats.norm.cdf((stats.norm.ppf(null) * deviations - lead.value) / np.maximum(errors, 1e-12)).mean())
    value = float(_led(np.array([lead.value]), np.array([arms.deviation]))[0])
    return Place(value, (float(low), float(high)), p)


def _led(leads: Floats, deviations: Floats) -> Floats:
    """Return the share of a normal distribution below each lead; of arms that are all alike all or none."""
    shares: Floats = stats.norm.cdf(leads / np.maximum(deviations, 1e-12))
    return shares
