"""FD, the fairness discrepancy (lower is better), and what a perfect steerer could reach.

FD = || mean over images of the class probabilities - target ||_2, per prompt, then the mean over prompts (protocol of
the paper's evaluation, after Shen et al. 2024). The target is uniform unless given. A row may sum to less than 1 where
the judge knows classes that no option names: that mass is dropped and not given to the others, as in the published
evaluation. FD of hard labels is FD of `one_hot_labels`.
"""

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.metrics.distributions import quotas


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
    """Return FD for every prompt, in the order the prompts first appear; raises ValueError naming one without a row."""
    rows, found = np.array(prompts), {}
    for prompt in dict.fromkeys(prompts):
        try:
            found[prompt] = fairness_discrepancy(probabilities[rows == prompt], target)
        except ValueError as error:
            raise ValueError(f"Prompt {prompt!r}: {error}") from error
    return found


def expected_floor(
    num_images: int, shares: Floats, assignment: str, draw_size: int, rng: np.random.Generator, num_draws: int = 4000
) -> float:
    """Return the expected FD of a steerer that always obeys, for this many images of one prompt.

    `image` draws an option per image, `batch` one per `draw_size` images (both by simulation), `quota` rounds exact
    shares, so only the rounding is left.
    """
    if assignment == "quota":
        return float(np.linalg.norm(quotas(num_images, shares) / num_images - shares))
    sizes = np.full(num_images, 1) if assignment == "image" else np.diff([*range(0, num_images, draw_size), num_images])
    total = np.zeros((num_draws, len(shares)))
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        total += size * rng.multinomial(count, shares, num_draws)
    return float(np.linalg.norm(total / num_images - shares, axis=1).mean())
