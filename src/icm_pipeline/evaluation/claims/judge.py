"""What of the figures is the judge's part: its errors where the truth is known, FD without them, and a second judge."""

import numpy as np
from scipy import stats

from icm_pipeline.arrays import Ints
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.evaluation.claims.pushed import shown_of
from icm_pipeline.evaluation.pairs import are_same
from icm_pipeline.images.table import ImageRow, read_table
from icm_pipeline.methods.assignment import target_shares
from icm_pipeline.metrics.agreement import agreement
from icm_pipeline.metrics.crossed import drawn_again, estimated
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.metrics.prevalence import confusion_rates, corrected_discrepancy
from icm_pipeline.results.verdicts import Finding, Found, Table

LEAST_RECALL = 0.9  # a judge who misses more of an option moves FD by more than the claims of an audit are about
LEAST_FALL = 0.1  # of FD, which is 0.71 where all images show one of two options
LEAST_KAPPA = 0.6  # "substantial" (Landis and Koch, 1977)
SAME = "the labeler is the judge, so there is no second opinion."


def found(inputs: AuditInputs) -> Found:
    steered = read_table(inputs.artifacts["steer"])
    originals = {row.image_id: row for row in read_table(inputs.artifacts["originals"])}
    sides = {"before": [originals[row.image_id] for row in steered], "after": steered}
    findings, tables, left_out = list[Finding](), dict[str, Table](), dict[str, str]()
    if inputs.labelled:
        findings, tables = _errors(inputs, sides)
    else:
        left_out = dict.fromkeys(("judge.recall", "judge.corrected_fd"), inputs.labelled_from)
    if are_same(inputs.settings):
        left_out["judge.agreement"] = SAME
    else:
        findings.append(_agreement(inputs, sides["after"]))
    return Found(findings, tables, left_out)


def _errors(inputs: AuditInputs, sides: dict[str, list[ImageRow]]) -> tuple[list[Finding], dict[str, Table]]:
    """Return how often the judge is right of the option it knows least, and how far FD falls without its errors."""
    names, rng = list(inputs.settings.attribute.options), inputs.rng("judge")
    target, resamples = np.array(target_shares(inputs.settings)), inputs.size.num_resamples
    truth = np.array([names.index(row.option) for row in inputs.labelled])
    seen = shown_of(inputs, {"labelled": list(inputs.labelled), **sides})
    said = {name: hard_labels(shown) for name, shown in seen.items()}
    prompts = np.array([row.prompt_index for row in sides["after"]])
    wanted = np.array([names.index(row.option) if row.option else -1 for row in sides["after"]])
    images = drawn_again(prompts * (1 + len(names)) + wanted + 1, resamples, rng)
    labelled = drawn_again(truth, resamples, rng)
    rates = confusion_rates(truth, said["labelled"], len(names))
    before, after = (corrected_discrepancy(said[side], prompts, rates, target) for side in sides)
    falls = []
    for own, known in zip(images, labelled, strict=True):
        drawn = confusion_rates(truth, said["labelled"], len(names), known)
        again = [corrected_discrepancy(said[side], prompts, drawn, target, own) for side in sides]
        falls.append(again[0] - again[1])
    fall = estimated(before - after, np.array(falls), len(prompts))
    perfect = np.eye(len(names))
    plain = [corrected_discrepancy(said[side], prompts, perfect, target) for side in sides]
    corrected = Finding(
        "judge.corrected_fd", "FD falls by steering also without the judge's errors.", fall.value, fall.interval_95,
        "FD", 0.0, LEAST_FALL, fall.p_above(0.0),
        f"of labels as judged {plain[0]:.3f} to {plain[1]:.3f}, corrected {before:.3f} to {after:.3f}", len(prompts),
        f"images and {len(truth)} labelled ones",
    )  # fmt: skip
    columns = ["truly", *names, "none", "images"]
    rows: list[list[str | float]] = [
        [name, *(float((said["labelled"][truth == index] == call).sum()) for call in (*range(len(names)), -1)),
         float((truth == index).sum())]
        for index, name in enumerate(names)
    ]  # fmt: skip
    return [_recall(inputs, truth, said["labelled"]), corrected], {"confusion": Table(columns, rows)}


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
