"""How options are distributed over images: shares, parity gap, worst-group share, and how far they moved.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026.
    https://arxiv.org/abs/2604.06052
    Finetuning Text-to-Image Diffusion Models for Fairness, 2024. https://arxiv.org/abs/2311.07604
"""

from collections.abc import Mapping, Sequence

import numpy as np

from icm_pipeline.arrays import Floats, Ints

Target = Floats | Mapping[str, Floats]
"""Wanted shares [K] of all prompts, or of each."""


def target_of(target: Target | None, prompt: str, num_options: int) -> Floats:
    """Return a prompt's wanted shares [K], equal ones of None; raises ValueError for a prompt that has none."""
    if target is None:
        return np.full(num_options, 1 / num_options)
    if not isinstance(target, Mapping):
        return target
    if prompt not in target:
        raise ValueError(f"There are no target shares for {prompt!r} (method.shares_by_prompt or its table).")
    return target[prompt]


def mean_shares(probabilities: Floats) -> Floats:
    """Return the mean row [K] of probabilities [n, K]; NaN rows are left out. Raises ValueError if no row is left."""
    seen = probabilities[~np.isnan(probabilities).any(1)]
    if not len(seen):
        raise ValueError("FD and shares need at least one image the judge could see.")
    shares: Floats = seen.mean(0)
    return shares


def parity_gap(shares: Floats) -> float:
    """Return the largest share minus the smallest: 0 at parity, 1 where all images show one option."""
    return float(shares.max() - shares.min())


def worst_share(shares: Floats) -> float:
    """Return the share of the option shown least: 1 / K at best."""
    return float(shares.min())


def total_variation(before: Floats, after: Floats) -> float:
    """Return half the L1 distance of two shares [K]: at least this part of the images changed its option."""
    if before.shape != after.shape:
        raise ValueError(f"Shares of the same options are needed, found {before.shape} and {after.shape}.")
    return float(np.abs(before - after).sum() / 2)


def quotas(count: int, shares: Sequence[float] | Floats, first: int = 0) -> Ints:
    """Divide `count` items by shares, rounding by largest remainders; of equal ones the next from `first` on is up."""
    exact = count * np.asarray(shares, float)
    counts = np.floor(exact).astype(np.int64)
    order = (np.argsort(-np.roll(exact - counts, -first), kind="stable") + first) % len(counts)
    counts[order[: count - counts.sum()]] += 1
    return counts
