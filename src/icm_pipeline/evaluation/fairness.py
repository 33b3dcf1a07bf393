"""FD and its companions for both sides of an evaluation, over the prompts with an image that the judge could see."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.config.schema import Settings
from icm_pipeline.methods.assignment import target_by_prompt
from icm_pipeline.methods.concepts import subject_of
from icm_pipeline.metrics.distributions import (
    Target,
    mean_shares,
    parity_gap,
    target_of,
    total_variation,
    worst_share,
)
from icm_pipeline.metrics.fairness import deviation_ratio, discrepancy_by_prompt, expected_floor
from icm_pipeline.metrics.intervals import bootstrap_interval, paired_change
from icm_pipeline.metrics.least_change import Choosing
from icm_pipeline.metrics.outcomes import hard_labels, one_hot_labels
from icm_pipeline.results.evaluation import Change, Discrepancy, Fairness, Figure

log = logging.getLogger(__name__)


def fairness_figures(
    settings: Settings,
    sides: Mapping[str, Floats],
    prompts: list[str],
    wanted: Ints,
    made_here: bool,
    by: Choosing | None = None,
) -> Fairness:
    """Return FD of each side with its floor and intervals, parity gaps and worst-group shares.

    Prompts of which a side has no image that the judge could see are left out; raises ValueError if none is left.

    sides: probabilities [n, K] of `steered` and, if there are any, `original` images; wanted: the option each image was
    steered to [n], -1 if unknown; made_here: whether options were drawn as `method.assignment` says. Quotas fix how
    many images are steered to what, so steered images are then resampled among those of one option.
    """
    num_resamples = settings.evaluate.bootstrap
    target = target_by_prompt(settings)
    rng = np.random.default_rng(settings.seed)
    method, floor = settings.method, _assigned_floor(wanted, prompts, target, len(settings.attribute.options))
    if made_here and by is None:
        num_images = settings.evaluate.images_per_prompt
        goals = list(target.values()) if isinstance(target, Mapping) else [target]
        floors = [expected_floor(num_images, goal, method.assignment, method.draw_size, rng) for goal in goals]
        floor = float(np.mean(floors))
    if settings.evaluate.fd == "labels":
        sides = {side: one_hot_labels(rows) for side, rows in sides.items()}
    left_out = unseen_prompts(list(sides.values()), prompts)
    if len(left_out) == len(set(prompts)):
        raise ValueError("The judge could see none of the images well enough to say what they show.")
    if left_out:
        log.warning("FD is without %d prompts of which the judge could see no image: %s", len(left_out), left_out)
    inside = ~np.isin(prompts, left_out)
    strata = wanted[inside] if made_here and (method.assignment == "quota" or by is not None) else None
    by = None if by is None else by.of(inside)
    sides, prompts = {side: rows[inside] for side, rows in sides.items()}, np.array(prompts)[inside].tolist()
    of_labels = dict[str, Any]()
    for side, rows in sides.items():
        suffix, found = "_original" if side == "original" else "", _figures_of_labels(rows, prompts, target)
        of_labels |= {f"fd_labels{suffix}": found[0], f"deviation_ratio{suffix}": found[1]}

    def figures(side: Floats, strata: Ints | None, by: Choosing | None) -> tuple[Discrepancy, Figure, Figure]:
        shares, fd = _by_prompt(side, prompts), _figure(discrepancy_by_prompt(side, prompts, target))
        interval = bootstrap_interval(side, prompts, num_resamples, rng, target, strata=strata, by=by)
        gap, rarest = (_figure({prompt: of(row) for prompt, row in shares.items()}) for of in (parity_gap, worst_share))
        return Discrepancy(fd.mean, fd.by_prompt, interval), gap, rarest

    def change(before: Floats, after: Floats) -> Change | None:
        pairs = ~np.isin(prompts, unseen_prompts([before + after], prompts))  # of prompts with a pair that was seen
        if not pairs.any():
            return None
        rows = np.array(prompts)[pairs].tolist()
        fixed = None if strata is None else strata[pairs]
        known = None if by is None else by.of(pairs)
        return Change(
            *paired_change(before[pairs], after[pairs], rows, num_resamples, rng, target, strata=fixed, by=known)
        )

    if "original" not in sides:
        after = figures(sides["steered"], strata, by)
        return replace(Fairness(floor, left_out, None, None, None, *after, None), **of_labels)
    before, after = figures(sides["original"], None, None), figures(sides["steered"], strata, by)
    moved = change(sides["original"], sides["steered"])
    return replace(Fairness(floor, left_out, *before, *after, moved), **of_labels)


def _figures_of_labels(side: Floats, prompts: list[str], target: Target) -> tuple[Figure, Figure] | tuple[None, None]:
    """Return FD and DevRat of hard labels, of the prompts with an image that has one; None if no image has.

    FD is that of each prompt; DevRat, as Li et al. have it, that of each subject, whose prompts' images are pooled.
    """
    labels = one_hot_labels(side)
    seen = ~np.isnan(labels).any(1)
    if not seen.any():
        return None, None
    of_images = np.array(prompts)[seen].tolist()
    shares, by_subject = (_by_prompt(labels[seen], groups) for groups in (of_images, _subjects(of_images)))
    fd = {prompt: float(np.linalg.norm(row - target_of(target, prompt, len(row)))) for prompt, row in shares.items()}
    return _figure(fd), _figure({prompt: deviation_ratio(row) for prompt, row in by_subject.items()})


def _subjects(prompts: list[str]) -> list[str]:
    """Return what each image's prompt is about where several prompts are about that, or else the prompt."""
    subjects = {prompt: subject_of(prompt) for prompt in dict.fromkeys(prompts)}
    numbers = Counter(subjects.values())
    return [subjects[prompt] if numbers[subjects[prompt]] > 1 else prompt for prompt in prompts]


def drift_of(before: Floats, after: Floats, prompts: list[str]) -> float | None:
    """Return the total variation between the shares of both sides, mean over prompts; None if the judge saw nothing."""
    unseen = unseen_prompts([before, after], prompts)
    inside, rows = ~np.isin(prompts, unseen), np.array(prompts)
    if not inside.any():
        return None
    shares, moved = (_by_prompt(side[inside], rows[inside].tolist()) for side in (before, after))
    return float(np.mean([total_variation(shares[prompt], moved[prompt]) for prompt in shares]))


def shares_by_prompt(probabilities: Floats, prompts: list[str], options: list[str]) -> dict[str, dict[str, float]]:
    """Return the share of images that show each option, per prompt."""
    labels, rows = hard_labels(probabilities), np.array(prompts)
    return {
        prompt: {option: float((labels[rows == prompt] == i).mean()) for i, option in enumerate(options)}
        for prompt in dict.fromkeys(prompts)
    }


def _assigned_floor(wanted: Ints, prompts: list[str], target: Target, num_options: int) -> float | None:
    """Return FD if all images showed the option they were steered to; None unless it is known of each."""
    if (wanted < 0).any():
        return None
    return _figure(discrepancy_by_prompt(np.eye(num_options)[wanted], prompts, target)).mean


def unseen_prompts(sides: Sequence[Floats], prompts: list[str]) -> list[str]:
    """Return the prompts of which a side has no image that the judge could see."""
    rows = np.array(prompts)
    seen = [np.asarray(~np.isnan(side).any(1)) for side in sides]
    return [prompt for prompt in dict.fromkeys(prompts) if not all(side[rows == prompt].any() for side in seen)]


def _by_prompt(probabilities: Floats, prompts: list[str]) -> dict[str, Floats]:
    rows = np.array(prompts)
    return {prompt: mean_shares(probabilities[rows == prompt]) for prompt in dict.fromkeys(prompts)}


def _figure(by_prompt: dict[str, float]) -> Figure:
    return Figure(float(np.mean(list(by_prompt.values()))), by_prompt)
