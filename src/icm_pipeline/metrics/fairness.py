"""FD, the fairness discrepancy (lower is better), and what a perfect steerer could reach.

FD = || mean over images of the class probabilities - target ||_2, per prompt, then the mean over prompts (protocol of
the paper's evaluation, after Shen et al. 2024). The target is uniform unless given. A row may sum to less than 1 where
the judge knows classes that no option names: that mass is dropped and not given to the others, as in the published
evaluation. FD of hard labels is FD of `one_hot_labels`.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def fairness_discrepancy(probabilities: Floats, target: Floats | None = None) -> float:
    """Return FD of one prompt's images from their class probabilities [n, K]; NaN rows (nothing seen) are left out.

    Raises ValueError if no row is left.
    """
    seen = probabilities[~np.isnan(probabilities).any(1)]
    if not len(seen):
        raise ValueError("FD needs at least one image the judge could see.")
    goal = np.full(seen.shape[1], 1 / seen.shape[1]) if target is None else target
    return float(np.linalg.norm(seen.mean(0) - goal))


def discrepancy_by_prompt(probabilities: Floats, prompts: list[str], target: Floats | None = None) -> dict[str, float]:
    """Return FD for every prompt, in the order the prompts first appear."""
    rows = np.array(prompts)
    return {prompt: fairness_discrepancy(probabilities[rows == prompt], target) for prompt in dict.fromkeys(prompts)}


def bootstrap_interval(
    probabilities: Floats,
    prompts: list[str],
    num_resamples: int,
    rng: np.random.Generator,
    target: Floats | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of mean FD under resampling the recognisable images within each prompt."""
    rows, seen = np.array(prompts), ~np.isnan(probabilities).any(1)
    groups = [np.flatnonzero((rows == prompt) & seen) for prompt in dict.fromkeys(prompts)]
    values = [
        np.mean([fairness_discrepancy(probabilities[rng.choice(g, len(g))], target) for g in groups])
        for _ in range(num_resamples)
    ]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_change(
    before: Floats,
    after: Floats,
    prompts: list[str],
    num_resamples: int,
    rng: np.random.Generator,
    target: Floats | None = None,
    level: float = 0.95,
) -> tuple[float, tuple[float, float]]:
    """Return mean FD of `after` minus mean FD of `before`, both [n, K] with row i from one seed, and its interval.

    Each resample draws image ids once, within each prompt, and takes both sides of them, so what twins share cancels.
    Pairs the judge could not see on either side are left out. Raises ValueError for a prompt without a pair.
    """
    if before.shape != after.shape:
        raise ValueError(f"Pairs need equally many images and options, found {before.shape} and {after.shape}.")
    rows, seen = np.array(prompts), ~np.isnan(before + after).any(1)
    goal = np.full(before.shape[1], 1 / before.shape[1]) if target is None else target
    change, values = 0.0, np.zeros(num_resamples)
    names = list(dict.fromkeys(prompts))
    for prompt in names:
        group = np.flatnonzero((rows == prompt) & seen)
        if not len(group):
            raise ValueError(f"No pair of {prompt!r} has two images the judge could see.")
        change += float(np.linalg.norm(after[group].mean(0) - goal) - np.linalg.norm(before[group].mean(0) - goal))
        drawn = rng.choice(group, (num_resamples, len(group)))
        values += np.linalg.norm(after[drawn].mean(1) - goal, axis=1)
        values -= np.linalg.norm(before[drawn].mean(1) - goal, axis=1)
    low, high = np.quantile(values / len(names), [(1 - level) / 2, (1 + level) / 2])
    return change / len(names), (float(low), float(high))


def expected_floor(
    num_images: int, shares: Floats, assignment: str, batch_size: int, rng: np.random.Generator, num_draws: int = 4000
) -> float:
    """Return the expected FD of a steerer that always obeys, for this many images of one prompt.

    `image` draws an option per image, `batch` one per `batch_size` images (both by simulation), `quota` rounds exact
    shares, so only the rounding is left.
    """
    if assignment == "quota":
        counts = np.floor(num_images * shares)
        rest = num_images * shares - counts
        counts[np.argsort(-rest, kind="stable")[: round(num_images - counts.sum())]] += 1
        return float(np.linalg.norm(counts / num_images - shares))
    sizes = (
        np.full(num_images, 1) if assignment == "image" else np.diff([*range(0, num_images, batch_size), num_images])
    )
    total = np.zeros((num_draws, len(shares)))
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        total += size * rng.multinomial(count, shares, num_draws)
    return float(np.linalg.norm(total / num_images - shares, axis=1).mean())
