"""FD, the fairness discrepancy (lower is better), and what a perfect steerer could reach.

FD = || mean over images of the class probabilities - target ||_2, per prompt, then the mean over prompts. The target is
uniform unless given. A row may sum to less than 1 where the judge knows classes that no option names: as in the
published evaluation that probability is dropped, not shared out. FD of hard labels is FD of `one_hot_labels`.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026.
    https://arxiv.org/abs/2604.06052
    Finetuning Text-to-Image Diffusion Models for Fairness, 2024. https://arxiv.org/abs/2311.07604
"""

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.metrics.distributions import Target, mean_shares, quotas, target_of


def fairness_discrepancy(probabilities: Floats, target: Floats | None = None) -> float:
    """Return FD of one prompt's images from their class probabilities [n, K]; NaN rows (nothing seen) are left out.

    Raises ValueError if no row is left.

    Example:
        fairness_discrepancy(np.array([[0.9, 0.1], [0.7, 0.3]]))  # 0.424: the mean is [0.8, 0.2], the target [0.5, 0.5]
    """
    shares = mean_shares(probabilities)
    return float(np.linalg.norm(shares - (1 / len(shares) if target is None else target)))


def discrepancy_by_prompt(probabilities: Floats, prompts: list[str], target: Target | None = None) -> dict[str, float]:
    """Return FD for every prompt, in the order the prompts first appear; raises ValueError naming one without a row."""
    rows, found = np.array(prompts), {}
    for prompt in dict.fromkeys(prompts):
        try:
            own = target_of(target, prompt, probabilities.shape[1])
            found[prompt] = fairness_discrepancy(probabilities[rows == prompt], own)
        except ValueError as error:
            raise ValueError(f"Prompt {prompt!r}: {error}") from error
    return found


def deviation_ratio(shares: Floats) -> float:
    """Return DevRat, max_k |shares_k - 1/K| / (1 - 1/K): 0 at parity, 1 where all images show one option.

    From shares [K] of hard labels, as Li et al. (Self-Discovering Interpretable Diffusion Latent Directions, 2024,
    https://arxiv.org/abs/2311.17216). Of two options it is sqrt(2) times FD of labels.
    """
    parity = 1 / len(shares)
    return float(np.abs(shares - parity).max() / (1 - parity))


def expected_floor(
    num_images: int, shares: Floats, assignment: str, draw_size: int, rng: np.random.Generator, num_draws: int = 4000
) -> float:
    """Return the expected FD of this many images of one prompt if every image shows the option it is steered to.

    `image` draws an option per image, `batch` one per `draw_size` images (both simulated); `quota` is exact but for
    rounding.
    """
    if assignment == "quota":
        return float(np.linalg.norm(quotas(num_images, shares) / num_images - shares))
    sizes = np.full(num_images, 1) if assignment == "image" else np.diff([*range(0, num_images, draw_size), num_images])
    total = np.zeros((num_draws, len(shares)))
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        total += size * rng.multinomial(count, shares, num_draws)
    return float(np.linalg.norm(total / num_images - shares, axis=1).mean())
