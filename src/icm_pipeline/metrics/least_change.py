"""What varies from one set of images to the next where those are steered that do not show what they are to.

Of a prompt's n images the quotas n_k are fixed, and how many show option k before, N_k, is not: min(N_k, n_k) of those
that are to show k are left as they are, and the others are steered to it. So images are drawn anew among those that are
left as they are, and among those that are steered, of each option; and how many there are of the two follows from N
drawn anew from the shares that were found. benchmarks/cover.py simulates how often that covers the truth.
"""

import numpy as np

from icm_pipeline.arrays import Floats, Ints


def strata_of(wanted: Ints, shown: Ints) -> Ints:
    """Return a number per image [n]: 2 k if it shows the option k that it is to show, 2 k + 1 if it is steered to it.

    Where it is not known what it is to show, -1, it is of the stratum -1.
    """
    strata: Ints = np.where(wanted < 0, -1, 2 * wanted + (wanted != shown))
    return strata


def shares_drawn(wanted: Ints, shown: Ints, num_options: int, num_draws: int, rng: np.random.Generator) -> Floats:
    """Return by how much the share of every stratum among one prompt's images differs in each draw, [draws, 2 K].

    wanted, shown: of its images [m], -1 where unknown.
    """
    if (wanted < 0).any():
        return np.zeros((num_draws, 2 * num_options))
    before = np.bincount(shown + 1, minlength=num_options + 1)
    quota = np.bincount(wanted, minlength=num_options)
    drawn = rng.multinomial(len(wanted), before / len(wanted), num_draws)[:, 1:]
    left = np.minimum(drawn, quota)
    numbers = np.stack([left, quota - left], axis=2).reshape(num_draws, -1)
    shares: Floats = (numbers - numbers.mean(0)) / len(wanted)
    return shares


def means_of_strata(rows: Floats, strata: Ints, num_options: int) -> Floats:
    """Return the mean row of each stratum [2 K, K]; for one without images that of its option's, else of all."""
    means = np.empty((2 * num_options, rows.shape[1]))
    for stratum in range(len(means)):
        choices = (strata == stratum, strata // 2 == stratum // 2, np.ones(len(rows), bool))
        means[stratum] = next(rows[chosen].mean(0) for chosen in choices if chosen.any())
    return means
