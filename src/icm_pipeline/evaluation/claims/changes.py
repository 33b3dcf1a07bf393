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
from icm_pipeline.metrics.crossed import drawn_again, estimated, share_of
from icm_pipeline.metrics.outcomes import hard_labels
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
        findings, tables["drift"] = _attributes(inputs, rows["other_seeds"])
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


def _attributes(inputs: AuditInputs, again: list[ImageRow]) -> tuple[list[Finding], Table]:
    """Return whether each other attribute moved less than between two unsteered runs of as many images."""
    settings, asked = inputs.settings, other_attributes(inputs.settings)
    steered, twins = steered_twins(inputs)
    sides = [twins[: len(again)], steered[: len(again)], again[: len(steered)]]
    judged = [inputs.judging.label(settings.judge, "judge", side, asked) for side in sides]
    prompts = [prompts_of(side) for side in sides]
    rng, num, rows, findings = inputs.rng("changes"), len(sides[1]), list[list[str | float]](), list[Finding]()
    strata = [strata_of(settings, sides[1]), prompts[2]]
    ours, theirs = (drawn_again(stratum, inputs.size.num_resamples, rng) for stratum in strata)
    own = np.ones((1, num)), np.ones((1, len(sides[2])))
    for name in asked:
        before, after, other = (seen[name] for seen in judged)
        moved, apart = (
            [drift(before, prompts[0], a, after, prompts[0], a), drift(before, prompts[0], a, other, prompts[2], b)]
            for a, b in (own, (ours, theirs))
        )
        value = float(moved[1][0] - moved[0][0])
        change = estimated(value, apart[1] - apart[0], num)
        findings.append(Finding(
            f"changes.{name}", f"Steering changes {name.replace('_', ' ')} no more than drawing other seeds does.",
            value, change.interval_95, "total variation", -MARGIN, -MARGIN, change.p_above(-MARGIN),
            f"{moved[1][0]:.3f} between two unsteered runs, {moved[0][0]:.3f} by steering", num, "images",
        ))  # fmt: skip
        rows.append([name, float(moved[0][0]), float(moved[1][0]), value, *change.interval_95, num])
    return findings, Table(DRIFT, rows)


def drift(
    before: Floats, prompts: Ints, weights: Floats, after: Floats, other_prompts: Ints, other_weights: Floats
) -> Floats:
    """Return the total variation of two sets' mean probabilities [n, K] in each resample [R], mean over prompts."""
    distances = []
    for prompt in np.unique(prompts):
        here, there = prompts == prompt, other_prompts == prompt
        shares = share_of(before[here].T, weights[:, here])
        moved = share_of(after[there].T, other_weights[:, there])
        distances.append(np.abs(moved - shares).sum(0) / 2)
    mean: Floats = np.nanmean(distances, axis=0)  # a prompt of which the judge saw no image does not count
    return mean


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
