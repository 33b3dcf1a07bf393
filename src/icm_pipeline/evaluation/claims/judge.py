"""What of the figures is the judge's part: its errors where the truth is known, FD without them, and a second judge."""

import numpy as np
from scipy import stats

from icm_pipeline.arrays import Ints
from icm_pipeline.evaluation.claims.base import LEAST_FALL, AuditInputs
from icm_pipeline.evaluation.claims.pushed import prompts_of, shown_of, steered_twins, strata_of, wanted_of
from icm_pipeline.evaluation.pairs import are_same
from icm_pipeline.images.table import ImageRow
from icm_pipeline.methods.assignment import target_shares
from icm_pipeline.metrics.agreement import agreement
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.metrics.prevalence import confusion_rates, corrected_discrepancy
from icm_pipeline.metrics.redrawn import drawn_again, estimated
from icm_pipeline.results.verdicts import Finding, Found, Table

LEAST_RECALL = 0.9  # a judge who misses more of an option moves FD by more than the claims of an audit are about
LEAST_KAPPA = 0.6  # "substantial" (Landis and Koch, 1977)
SAME = "the labeler is the judge, so there is no second opinion."


def found(inputs: AuditInputs) -> Found:
    steered, twins = steered_twins(inputs)
    sides = {"before": twins, "after": steered}
    findings, tables, left_out = list[Finding](), dict[str, Table](), dict[str, str]()
    if inputs.labelled:
        truth, said = _of_labelled(inputs)
        findings, tables["confusion"] = [_recall(inputs, truth, said)], _confusion(inputs, truth, said)
        try:
            findings.append(_corrected(inputs, sides, truth, said))
        except ValueError as error:
            left_out["judge.corrected_fd"] = str(error)
    else:
        left_out = dict.fromkeys(("judge.recall", "judge.corrected_fd"), inputs.labelled_from)
    if are_same(inputs.settings):
        left_out["judge.agreement"] = SAME
    else:
        try:
            findings.append(_agreement(inputs, sides["after"]))
        except ValueError as error:
            left_out["judge.agreement"] = str(error)
    return Found(findings, tables, left_out)


def _of_labelled(inputs: AuditInputs) -> tuple[Ints, Ints]:
    """Return what labelled images truly show and what the judge calls them, -1 for none."""
    truth = wanted_of(inputs.settings, inputs.labelled)
    return truth, hard_labels(shown_of(inputs, {"labelled": list(inputs.labelled)})["labelled"])


def _corrected(inputs: AuditInputs, sides: dict[str, list[ImageRow]], truth: Ints, called: Ints) -> Finding:
    """Return how far FD falls without the judge's errors; raises ValueError where these are not known."""
    names, rng = list(inputs.settings.attribute.options), inputs.rng("judge")
    target, resamples = np.array(target_shares(inputs.settings)), inputs.size.num_resamples
    said = {name: hard_labels(shown) for name, shown in shown_of(inputs, sides).items()}
    prompts = prompts_of(sides["after"])
    images = drawn_again(strata_of(inputs.settings, sides["after"]), resamples, rng)
    labelled = drawn_again(truth, resamples, rng)
    rates = confusion_rates(truth, called, len(names))
    before, after = (corrected_discrepancy(said[side], prompts, rates, target) for side in sides)
    falls = []
    for own, known in zip(images, labelled, strict=True):
        drawn = confusion_rates(truth, called, len(names), known)
        again = [corrected_discrepancy(said[side], prompts, drawn, target, own) for side in sides]
        falls.append(again[0] - again[1])
    fall = estimated(before - after, np.array(falls), len(prompts))
    perfect = np.eye(len(names))
    plain = [corrected_discrepancy(said[side], prompts, perfect, target) for side in sides]
    return Finding(
        "judge.corrected_fd", "FD falls by steering also without the judge's errors.", fall.value, fall.interval_95,
        "FD", 0.0, LEAST_FALL, fall.p_above(0.0),
        f"of labels as judged {plain[0]:.3f} to {plain[1]:.3f}, corrected {before:.3f} to {after:.3f}", len(prompts),
        f"images and {len(truth)} labelled ones",
    )  # fmt: skip


def _confusion(inputs: AuditInputs, truth: Ints, said: Ints) -> Table:
    """Return how many labelled images of each option the judge calls by which."""
    names = list(inputs.settings.attribute.options)
    rows: list[list[str | float]] = [
        [name, *(float((said[truth == index] == call).sum()) for call in (*range(len(names)), -1)),
         float((truth == index).sum())]
        for index, name in enumerate(names)
    ]  # fmt: skip
    return Table(["truly", *names, "none", "images"], rows)


def _recall(inputs: AuditInputs, truth: Ints, said: Ints) -> Finding:
    names = list(inputs.settings.attribute.options)
    right = [int((said[truth == option] == option).sum()) for option in range(len(names))]
    counts = np.bincount(truth, minlength=len(names))
    worst = int(np.argmin(np.array(right) / counts))
    hits, num = right[worst], int(counts[worst])
    limits = stats.binomtest(hits, num).proportion_ci(0.95)
    return Finding(
        "judge.recall", "The judge recognises images of every option.", hits / num,
        (float(limits.low), float(limits.high)), "share of images", LEAST_RECALL, LEAST_RECALL,
        float(stats.binomtest(hits, num, LEAST_RECALL, "greater").pvalue),
        f"{inputs.labelled_from}; of the option it knows least, {names[worst]}", num, "labelled images",
    )  # fmt: skip


def _agreement(inputs: AuditInputs, steered: list[ImageRow]) -> Finding:
    """Return the kappa of judge and labeler on steered images; the labeler taught the probes, the judge did not."""
    settings, attribute = inputs.settings, inputs.settings.attribute
    asked, num = {attribute.name: attribute.options}, len(attribute.options)
    other = hard_labels(inputs.judging.label(settings.labeler, "labeler", steered, asked)[attribute.name])
    own = hard_labels(shown_of(inputs, {"steered": steered})["steered"])
    table, share, kappa = agreement(own, other, num)
    if kappa is None:
        raise ValueError("Both judges call all steered images the same, so their agreement cannot be told from chance.")
    rng, cells = inputs.rng("agreement"), (table / table.sum()).ravel()
    drawn = rng.multinomial(int(table.sum()), cells, inputs.size.num_resamples).reshape(-1, num, num) / table.sum()
    chance = (drawn.sum(1) * drawn.sum(2)).sum(1)
    kappas = (np.trace(drawn, axis1=1, axis2=2) - chance) / (1 - chance)
    found = estimated(kappa, kappas, int(table.sum()))
    low, high = found.interval_95
    return Finding(
        "judge.agreement", "The judge and the labeler, which taught the probes, agree on steered images.", kappa,
        (low, min(high, 1.0)), "kappa", LEAST_KAPPA, LEAST_KAPPA, found.p_above(LEAST_KAPPA),
        f"chance: kappa 0; they agree on {share:.3f} of the images", int(table.sum()), "images",
    )  # fmt: skip
