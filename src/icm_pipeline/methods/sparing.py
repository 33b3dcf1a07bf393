"""Steer more images than have to change, and take those that turned and changed least; the others stay as they were."""

from collections.abc import Sequence

import numpy as np

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.metrics.distributions import quotas


def tried_options(prompts: Sequence[int], shown: Ints, wanted: Ints, tries: int, seed: int) -> Ints:
    """Return the option that each image is steered to on trial [n], -1 for one that is not steered.

    prompts, shown, wanted: of each image [n], -1 where it is not known what it shows or left alone. Those that are to
    change are tried for what they are to show. Of each prompt and option, up to tries - 1 more for each of them are
    drawn from those that are to stay, in the same proportions.
    """
    rng, groups = np.random.default_rng(seed), np.asarray(prompts)
    is_changed = (wanted >= 0) & (wanted != shown)
    tried = np.where(is_changed, wanted, -1)
    for prompt, option in _kinds(groups, shown):
        alike = (groups == prompt) & (shown == option)
        numbers = np.bincount(wanted[alike & is_changed])
        staying = rng.permutation(np.flatnonzero(alike & (wanted == option)))
        spare = staying[: (tries - 1) * int(numbers.sum())]
        if len(spare):
            tried[spare] = np.repeat(np.arange(len(numbers)), quotas(len(spare), numbers / numbers.sum()))
    return tried


def least_changed(
    prompts: Sequence[int], shown: Ints, wanted: Ints, tried: Ints, turned: np.ndarray, change: Floats
) -> Ints:
    """Return an option for each image [n]: of each prompt, as many change from one to another as in `wanted`.

    Of those that were tried for it, the ones that turned go first, then those that changed least. turned: whether an
    image shows what it was tried for [n]; change: by how much it changed [n]. Neither is read of images not tried.
    """
    groups, options = np.asarray(prompts), wanted.copy()
    for prompt, option in _kinds(groups, shown):
        for target in np.unique(tried[(groups == prompt) & (shown == option) & (tried >= 0)]):
            candidates = np.flatnonzero((groups == prompt) & (shown == option) & (tried == target))
            number = (wanted[candidates] == target).sum()
            order = np.lexsort((change[candidates], ~turned[candidates]))
            options[candidates] = option
            options[candidates[order[:number]]] = target
    return options


def _kinds(groups: Ints, shown: Ints) -> list[tuple[int, int]]:
    """Return every prompt with every option that an image of it shows."""
    return sorted({(int(group), int(option)) for group, option in zip(groups, shown, strict=True) if option >= 0})
