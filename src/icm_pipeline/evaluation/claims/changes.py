"""What else changed: other attributes, what prompts name, and pictures of other subjects."""

import numpy as np
from scipy import stats

from icm_pipeline.arrays import Floats, Ints
from icm_pipeline.evaluation.claims.base import LEAST_CLOSER, NOT_NAMED, AuditInputs
from icm_pipeline.evaluation.claims.pushed import (
    by_arm,
    prompts_of,
    shown_of,
    steered_twins,
    strata_of,
    wanted_of,
)
from icm_pipeline.evaluation.pairs import other_attributes
from icm_pipeline.generation.named import named_prompts
from icm_pipeline.images.table import ImageRow
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.metrics.redrawn import drawn_again, estimated, share_of
from icm_pipeline.metrics.similarity import mapped_cosine
from icm_pipeline.results.verdicts import Finding, Found, Table

MARGIN = 0.05  # of a prompt's images: five of a hundred that show something else are more than a viewer should find
LEAST_KEPT = 0.95  # of prompts that say what to show: who is told so may expect it
DRIFT = ["attribute", "steered", "other seeds", "difference", "low", "high", "images"]
KEPT = ["named", "pushed to", "images", "kept"]
LEFT_ALONE = "method.assignment=least_change does not steer images whose prompts name an option."
NONE_SHOWN = "No image showed what its prompt names: the judge or the model does not know these words."
NO_OTHERS = "evaluate.drift names no other attribute."
NO_SUBJECTS = "audit.other_subjects gives no prompt of another subject."


def found(inputs: AuditInputs) -> Found:
    rows, left_out, findings = by_arm(inputs.artifacts["push"]), dict[str, str](), list[Finding]()
    tables = dict[str, Table]()
    if other_attributes(inputs.settings):
        findings, tables["drift"] = _attributes(inputs)
    else:
        left_out["changes.other_attributes"] = NO_OTHERS
    if inputs.settings.method.assignment == "least_change":
        left_out["changes.named_prompts"] = LEFT_ALONE
    elif "named" in rows:
        finding, tables["named"] = _named(inputs, rows["named"], rows["named_steered"])
        if finding:
            findings.append(finding)
        else:
            left_out["changes.named_prompts"] = NONE_SHOWN
    else:
        left_out["changes.named_prompts"] = NOT_NAMED
    if "other_subjects" in rows:
        findings.append(_subjects(inputs, rows["other_subjects"], rows["other_subjects_steered"]))
    else:
        left_out["changes.other_subjects"] = NO_SUBJECTS
    return Found(findings, tables, left_out)


def _attributes(inputs: AuditInputs) -> tuple[list[Finding], Table]:
    """Return whether each other attribute moved less than between unsteered images of other seeds, as many of each."""
    settings, asked = inputs.settings, other_attributes(inputs.settings)
    steered, twins = steered_twins(inputs)
    before, after = (inputs.judging.label(settings.judge, "judge", side, asked) for side in (twins, steered))
    prompts, num, rows, findings = prompts_of(steered), len(steered), list[list[str | float]](), list[Finding]()
    weights = drawn_again(strata_of(settings, steered), inputs.size.num_resamples, inputs.rng("changes"))
    for name in asked:
        (moved, apart), again = (
            drifts(before[name], after[name], prompts, each) for each in (np.ones((1, num)), weights)
        )
        value = float(apart[0] - moved[0])
        change = estimated(value, again[1] - again[0], num)
        findings.append(Finding(
            f"changes.{name}", f"Steering changes {name.replace('_', ' ')} no more than drawing other seeds does.",
            value, change.interval_95, "total variation", -MARGIN, -MARGIN, change.p_above(-MARGIN),
            f"{apart[0]:.3f} between halves of unsteered images, {moved[0]:.3f} by steering", num, "images",
        ))  # fmt: skip
        rows.append([name, float(moved[0]), float(apart[0]), value, *change.interval_95, num])
    return findings, Table(DRIFT, rows)


def drifts(before: Floats, after: Floats, prompts: Ints, weights: Floats) -> tuple[Floats, Floats]:
    """Return how far half of a prompt's images moved and how far apart the halves were, in each resample [R].

    before, after: [n, K], of the same images. Far is the total variation of mean probabilities, mean over prompts, and
    over all halvings by the normal law of a half's mean, so that no one halving decides.
    """
    moved, apart = list[Floats](), list[Floats]()
    there = np.isfinite(before).all(-1) & np.isfinite(after).all(-1)
    for prompt in np.unique(prompts[there]):  # a prompt of which the judge saw no image does not count
        rows = there & (prompts == prompt)
        change, change_of_halves = _mean_and_variance(after[rows] - before[rows], weights[:, rows])
        _, variance = _mean_and_variance(before[rows], weights[:, rows])
        moved.append(expected_distance(change, change_of_halves).sum(0) / 2)
        apart.append(expected_distance(np.zeros_like(change), 4 * variance).sum(0) / 2)
    if not moved:
        return np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    return np.mean(moved, axis=0), np.mean(apart, axis=0)


def _mean_and_variance(values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return the means of values [m, K] in each resample [K, R], and the variance of a half's mean around them."""
    means, squares = share_of(values.T, weights), share_of((values**2).T, weights)
    return means, np.maximum(0.0, squares - means**2) / max(1, len(values) - 1)


def expected_distance(means: Floats, variances: Floats) -> Floats:
    """Return the mean distance from 0 of normal numbers."""
    errors = np.sqrt(np.maximum(variances, 1e-18))
    distances: Floats = 2 * errors * stats.norm.pdf(means / errors) + means * (2 * stats.norm.cdf(means / errors) - 1)
    return distances


def _named(inputs: AuditInputs, before: list[ImageRow], after: list[ImageRow]) -> tuple[Finding | None, Table]:
    """Return how many images that showed what their prompt names still do when pushed to another; None of none."""
    names = list(inputs.settings.attribute.options)
    option_of = {prompt.text: prompt.option for prompt in named_prompts(inputs.settings.attribute)}
    seen = shown_of(inputs, {"before": before, "after": after})
    shown, kept = (hard_labels(seen[side]) for side in ("before", "after"))
    told = np.array([names.index(option_of[row.prompt]) for row in before])
    wanted = wanted_of(inputs.settings, after)
    rows: list[list[str | float]] = []
    for named, option in enumerate(names):
        for pushed, other in enumerate(names):
            cell = (told == named) & (wanted == pushed) & (shown == told)
            if cell.any():
                rows.append([option, other, float(cell.sum()), float((kept == told)[cell].mean())])
    elsewhere = (told != wanted) & (shown == told)
    num, held = int(elsewhere.sum()), int((kept == told)[elsewhere].sum())
    if not num:
        return None, Table(KEPT, rows)
    limits = stats.binomtest(held, num).proportion_ci(0.95)
    control = f"unsteered {(shown == told).mean():.2f} of {len(told)} show what is named"
    return Finding(
        "changes.named_prompts", "A prompt that names an option keeps it when pushed to another.", held / num,
        (float(limits.low), float(limits.high)), "share of images", LEAST_KEPT, LEAST_KEPT,
        float(stats.binomtest(held, num, LEAST_KEPT, "greater").pvalue), control, num, "images",
    ), Table(KEPT, rows)  # fmt: skip


def _subjects(inputs: AuditInputs, before: list[ImageRow], after: list[ImageRow]) -> Finding:
    """Return how much nearer to their twins pushed pictures of other subjects stay than those of the attribute's.

    Images that were left alone, which are their own twins, do not count.
    """
    pairs = [(row, twin) for row, twin in zip(*steered_twins(inputs), strict=True) if not row.is_original]
    steered, twins = [row for row, _ in pairs], [twin for _, twin in pairs]
    embed = inputs.judging.embed
    theirs, ours = mapped_cosine(embed(after), embed(before)), mapped_cosine(embed(steered), embed(twins))
    test = stats.ttest_ind(theirs, ours, equal_var=False, alternative="greater")
    low, high = stats.ttest_ind(theirs, ours, equal_var=False).confidence_interval(0.95)
    return Finding(
        "changes.other_subjects", "Pictures of other subjects stay nearer to their twins than those that are steered.",
        float(theirs.mean() - ours.mean()), (float(low), float(high)), "CLIP-I", 0.0, LEAST_CLOSER, float(test.pvalue),
        f"CLIP-I {theirs.mean():.3f} of other subjects, {ours.mean():.3f} of the steered", len(theirs), "images",
    )  # fmt: skip
