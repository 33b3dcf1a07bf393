"""Which option each image is steered to: drawn per image, per batch (the paper's way), or by exact quotas.

Quotas may be drawn at random or so that as few images as possible change what they show.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026,
    https://arxiv.org/abs/2604.06052
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array, vstack

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.config.choices import ASSIGNMENTS
from icm_pipeline.metrics.distributions import quotas
from icm_pipeline.metrics.outcomes import hard_labels

JITTER = 1e-6  # of the costs, so that the seed decides between equal images; probabilities have six digits


def assign_options(
    prompt_indices: list[int], shares: list[float], how: str, draw_size: int, seed: int
) -> NDArray[np.int64]:
    """Return an option index per image [n].

    `image` draws each image's option from `shares`, `batch` draws one for every `draw_size` consecutive images
    of one prompt, `quota` gives every prompt its exact share of each option (largest remainders) in random order.
    `least_change` asks what the images show: see `least_change`.
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


def least_change(probabilities: Floats, lower: Ints, upper: Ints, rng: np.random.Generator) -> Ints:
    """Return an option for each image [n] so that as few as possible have to change what they show.

    probabilities: [n, K] of what each image shows unsteered, NaN where that could not be told, so that it changes
    whatever it gets; lower, upper: [K], how many images each option gets. Of assignments that change equally few, the
    one in which the images are likeliest to show what they get; then `rng` decides. It is a transport problem, solved
    by a linear programme whose vertices are whole numbers. Raises ValueError for bounds that n images cannot meet.
    """
    num_images, num_options = probabilities.shape
    if lower.sum() > num_images or upper.sum() < num_images or (lower > upper).any():
        raise ValueError(f"{num_images} images cannot be divided into {lower} to {upper} of each option.")
    if not num_images:
        return np.zeros(0, np.int64)
    shown = hard_labels(probabilities)
    likely = np.nan_to_num(probabilities) + JITTER * rng.random(probabilities.shape)
    cost = (shown[:, None] != np.arange(num_options)) - likely / (2 * num_images)  # likelihoods add up to less than 1
    image, option = np.divmod(np.arange(cost.size), num_options)
    ones, places = np.ones(cost.size), np.arange(cost.size)
    of_images = csr_array((ones, (image, places)), (num_images, cost.size))
    of_options = csr_array((ones, (option, places)), (num_options, cost.size))
    found = linprog(
        cost.ravel(), bounds=(0, 1), method="highs-ds", A_eq=of_images, b_eq=np.ones(num_images),
        A_ub=vstack([of_options, -of_options]), b_ub=np.concatenate([upper, -lower]),
    )  # fmt: skip
    options: Ints = found.x.reshape(cost.shape).argmax(1)
    return options
