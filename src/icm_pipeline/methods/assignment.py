"""Which option each image is steered to: drawn per image, per batch (the paper's way), or by exact quotas.

Quotas may be drawn at random or so that as few images as possible change what they show.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026,
    https://arxiv.org/abs/2604.06052
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.config.choices import ASSIGNMENTS
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.metrics.distributions import Target, quotas
from icm_pipeline.metrics.outcomes import hard_labels

FILLED = 4  # what a place that must be filled takes off the cost: more than any image's
Shares = Sequence[float] | Mapping[int, Sequence[float]]
"""Wanted ones [K] of all prompts, or of each by its index."""
JITTER = 1e-6  # of the costs, so that the seed decides between equal images; probabilities have six digits


def target_shares(settings: Settings) -> list[float]:
    """Return the wanted share of each option."""
    num_options = len(settings.attribute.options)
    return settings.method.target_shares or [1 / num_options] * num_options


def target_by_prompt(settings: Settings) -> Target:
    """Return the wanted shares [K] of all prompts, or where they have their own, of each."""
    own = settings.method.shares_by_prompt
    return {prompt: np.array(shares) for prompt, shares in own.items()} if own else np.array(target_shares(settings))


def shares_of_jobs(settings: Settings, jobs: Sequence[Job]) -> Shares:
    """Return the wanted shares of all jobs, or by prompt index where prompts have their own."""
    own, of_all = settings.method.shares_by_prompt, target_shares(settings)
    return {job.prompt_index: own.get(job.prompt, of_all) for job in jobs} if own else of_all


def assign_options(
    prompt_indices: list[int], shares: Shares, how: str, draw_size: int, seed: int, rotated: bool = False
) -> NDArray[np.int64]:
    """Return an option index per image [n]; shares: of all prompts, or of each by its index.

    `image` draws each image's option from `shares`, `batch` draws one for every `draw_size` consecutive images
    of one prompt, `quota` gives every prompt its exact share of each option (largest remainders) in random order;
    rotated: what is left over goes to the next options from prompt to prompt, and not to the first ones of each.
    Raises ValueError for another way, and for `least_change`, which asks what the images show.
    """
    rng = np.random.default_rng(seed)
    n = len(prompt_indices)
    if how == "image" and not isinstance(shares, Mapping):
        return rng.choice(len(shares), n, p=shares)
    if how == "least_change":
        raise ValueError("method.assignment=least_change goes by what images show: call least_change_by_prompt.")
    if how not in ASSIGNMENTS:
        raise ValueError(f"method.assignment={how} is not known; choose from {', '.join(ASSIGNMENTS)}.")
    options, given = np.empty(n, np.int64), 0
    for prompt in sorted(set(prompt_indices)):
        members = np.flatnonzero(np.array(prompt_indices) == prompt)
        own = shares[prompt] if isinstance(shares, Mapping) else shares
        if how == "quota":
            counts = quotas(len(members), own, given % len(own) if rotated else 0)
            given += len(members) - int(np.floor(len(members) * np.asarray(own)).sum())
            options[members] = rng.permutation(np.repeat(np.arange(len(own)), counts))
        else:
            size = draw_size if how == "batch" else 1
            drawn = rng.choice(len(own), -(-len(members) // size), p=own)
            options[members] = np.repeat(drawn, size)[: len(members)]
    return options


def least_change_by_prompt(prompt_indices: Sequence[int], probabilities: Floats, shares: Shares, seed: int) -> Ints:
    """Return an option for each image [n] that gives every prompt its shares by the least change of its images.

    Where a share is no whole number of images, either of the two nearest will do. See `least_change`.
    """
    rng, prompts = np.random.default_rng(seed), np.asarray(prompt_indices)
    options = np.empty(len(prompts), np.int64)
    for prompt in np.unique(prompts):
        members = np.flatnonzero(prompts == prompt)
        own = shares[int(prompt)] if isinstance(shares, Mapping) else shares
        exact = np.round(len(members) * np.asarray(own), 9)
        lower, upper = np.floor(exact).astype(np.int64), np.ceil(exact).astype(np.int64)
        options[members] = least_change(probabilities[members], lower, upper, rng)
    return options


def least_change(
    probabilities: Floats, lower: Ints, upper: Ints, rng: np.random.Generator, num_changed: Ints | None = None
) -> Ints:
    """Return an option for each image [n] so that as few as possible have to change what they show.

    probabilities: [n, K] of what each image shows unsteered, NaN where that could not be told, so that it changes
    whatever it gets; lower, upper: [K], how many images each option gets. Of assignments that change equally few, the
    one in which the images are likeliest to show what they get; then `rng` decides. Each option has `upper` places, of
    which `lower` are filled whatever that costs. num_changed: [n, K], how much an image has to change for each option;
    None for 0 of the one that it shows and 1 of the others. Raises ValueError for bounds that n images cannot meet.
    """
    num_images, num_options = probabilities.shape
    if lower.sum() > num_images or upper.sum() < num_images or (lower > upper).any():
        raise ValueError(f"{num_images} images cannot be divided into {lower} to {upper} of each option.")
    if num_changed is None:
        num_changed = (hard_labels(probabilities)[:, None] != np.arange(num_options)).astype(np.int64)
    likely = np.nan_to_num(probabilities) + JITTER * rng.random(probabilities.shape)
    changes = num_changed - likely / (2 * max(1, num_images))  # these add up to under 1
    places = np.repeat(np.arange(num_options), upper)
    is_filled = np.concatenate([np.arange(count) < least for least, count in zip(lower, upper, strict=True)])
    _, taken = linear_sum_assignment(changes[:, places] - FILLED * max(1, num_changed.max(initial=0)) * is_filled)
    options: Ints = places[taken]
    return options
