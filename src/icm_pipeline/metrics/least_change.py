"""What varies from one set of images to the next where those are steered that do not show what they are to.

Of a prompt's n images the quotas n_k are fixed, and how many show option k before, N_k, is not: min(N_k, n_k) of those
that are to show k are left as they are, and the others are steered to it. So images are drawn anew among those that are
left as they are, and among those that are steered, of each option; and how many there are of the two follows from N
drawn anew from the shares that were found. With more tries than one, how many of these turn is drawn anew too, and one
image for each that is to change is taken, those that turned first. benchmarks/cover.py simulates how often that covers
the truth.
"""

from dataclasses import dataclass

import numpy as np

from icm_pipeline.arrays import Bools, Floats, Ints

LEFT, STEERED, FAILED = range(3)  # what became of an image: left as it is, steered, steered and seen not to have turned


@dataclass(frozen=True)
class Choosing:
    """By what it was chosen which images are steered."""

    shown: Ints
    """What each image shows unsteered [n], -1 if unknown."""
    tried: Ints | None = None
    """The option that it was steered to on trial [n], taken or not, -1 for none; None where that is not known."""
    turned: Bools | None = None
    """Whether it was then seen to show that [n]."""

    def of(self, images: Ints | Bools) -> "Choosing":
        """Return the same of some images."""
        if self.tried is None or self.turned is None:
            return Choosing(self.shown[images])
        return Choosing(self.shown[images], self.tried[images], self.turned[images])


def strata_of(wanted: Ints, by: Choosing) -> Ints:
    """Return a number per image [n]: 3 k + LEFT if it shows the option k that it is to show, and else 3 k + STEERED or,
    where tries are known and it did not turn, 3 k + FAILED.

    Where it is not known what it is to show, -1, it is of the stratum -1.
    """
    became = np.where(wanted != by.shown, STEERED, LEFT)
    if by.turned is not None:
        became = np.where((became == STEERED) & ~by.turned, FAILED, became)
    strata: Ints = np.where(wanted < 0, -1, 3 * wanted + became)
    return strata


def shares_drawn(wanted: Ints, by: Choosing, num_options: int, num_draws: int, rng: np.random.Generator) -> Floats:
    """Return by how much the share of every stratum among one prompt's images differs in each draw, [draws, 3 K].

    wanted [m]: of its images, -1 where unknown.
    """
    if (wanted < 0).any():
        return np.zeros((num_draws, 3 * num_options))
    before = np.bincount(by.shown + 1, minlength=num_options + 1)
    quota = np.bincount(wanted, minlength=num_options)
    drawn = rng.multinomial(len(wanted), before / len(wanted), num_draws)[:, 1:]
    left = np.minimum(drawn, quota)
    needed, failed = quota - left, np.zeros(left.shape)
    if by.tried is not None and by.turned is not None:
        failed = _failed(needed, wanted, by.shown, by.tried, by.turned, rng)
    differences = [left - left.mean(0), needed - needed.mean(0) - failed, failed]
    shares: Floats = np.stack(differences, axis=2).reshape(num_draws, -1) / len(wanted)
    return shares


def _failed(needed: Ints, wanted: Ints, shown: Ints, tried: Ints, turned: Bools, rng: np.random.Generator) -> Floats:
    """Return by how many the images that are taken without having turned differ from those found [draws, K].

    As many are tried for each that is needed as were, of those that show each option, and turn about as often as these
    did. How often is drawn too (Jeffreys' posterior), as a set in which enough turned shows little of the doubt.
    """
    failed = np.zeros(needed.shape)
    for option, before in np.argwhere(np.ones((needed.shape[1], needed.shape[1]))):
        trials, taken = (tried == option) & (shown == before), (wanted == option) & (shown == before)
        if option == before or not taken.any():
            continue
        num_turned, share = int(turned[trials].sum()), taken.sum() / ((wanted == option) & (shown != option)).sum()
        here = np.rint(needed[:, option] * share).astype(np.int64)
        num_tried = np.rint(here * trials.sum() / taken.sum()).astype(np.int64)
        how_often = rng.beta(num_turned + 0.5, trials.sum() - num_turned + 0.5, len(needed))
        found = (taken & ~turned).sum()
        failed[:, option] += np.maximum(0, here - rng.binomial(num_tried, how_often)) - found
    return failed


def means_of_strata(rows: Floats, strata: Ints, num_options: int) -> Floats:
    """Return the mean row of each stratum [3 K, K].

    For one without images that of what it would look like: of failed ones, images of other options that were left as
    they are; else its option's, else all.
    """
    means = np.empty((3 * num_options, rows.shape[1]))
    for stratum in range(len(means)):
        option, became = divmod(stratum, 3)
        alike = (strata // 3 != option) & (strata % 3 == LEFT) & (became == FAILED)
        choices = (strata == stratum, alike, strata // 3 == option, np.ones(len(rows), bool))
        means[stratum] = next(rows[chosen].mean(0) for chosen in choices if chosen.any())
    return means
