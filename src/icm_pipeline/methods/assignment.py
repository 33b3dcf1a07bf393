"""Which option each image is steered to: drawn per image, per batch (the paper's way), or by exact quotas.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026,
    https://arxiv.org/abs/2604.06052
"""

import numpy as np
from numpy.typing import NDArray

from icm_pipeline.config.choices import ASSIGNMENTS
from icm_pipeline.metrics.distributions import quotas


def assign_options(
    prompt_indices: list[int], shares: list[float], how: str, draw_size: int, seed: int
) -> NDArray[np.int64]:
    """Return an option index per image [n].

    `image` draws each image's option from `shares`, `batch` draws one for every `draw_size` consecutive images
    of one prompt, `quota` gives every prompt its exact share of each option (largest remainders) in random order.
    """
    rng = np.random.default_rng(seed)
    n = len(prompt_indices)
    if how == "image":
        return rng.choice(len(shares), n, p=shares)
    if how not in ("batch", "quota"):
        raise ValueError(f"method.assignment={how} is not known; choose from {', '.join(ASSIGNMENTS)}.")
    options = np.empty(n, np.int64)
    for prompt in sorted(set(prompt_indices)):
        members = np.flatnonzero(np.array(prompt_indices) == prompt)
        if how == "batch":
            drawn = rng.choice(len(shares), -(-len(members) // draw_size), p=shares)
            options[members] = np.repeat(drawn, draw_size)[: len(members)]
        else:
            options[members] = rng.permutation(np.repeat(np.arange(len(shares)), quotas(len(members), shares)))
    return options
