"""What steering does on prompts and seeds that neither probes nor searches had."""

import numpy as np

from icm_pipeline.evaluation.claims.base import LEAST_CLOSER, LEAST_FALL, AuditInputs
from icm_pipeline.evaluation.claims.pushed import (
    as_fd_counts,
    prompts_of,
    shown_of,
    steered_twins,
    strata_of,
    wanted_of,
)
from icm_pipeline.generation.jobs import evaluated_subjects, evaluation_jobs, probe_jobs, tuning_jobs
from icm_pipeline.images.table import ImageRow
from icm_pipeline.methods.assignment import target_shares
from icm_pipeline.methods.tuning import budget_for
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.metrics.redrawn import discrepancies, drawn_again, estimated, share_of
from icm_pipeline.metrics.similarity import mapped_cosine
from icm_pipeline.results.verdicts import Finding, Found
from icm_pipeline.text import with_article

LEAST_OBEYED = 0.2  # of the images more than unsteered


def found(inputs: AuditInputs) -> Found:
    settings, (steered, twins) = inputs.settings, steered_twins(inputs)
    seen = shown_of(inputs, {"before": twins, "after": steered})
    prompts, wanted = prompts_of(steered), wanted_of(settings, steered)
    rng, num = inputs.rng("confirmation"), len(steered)
    weights = drawn_again(strata_of(settings, steered), inputs.size.num_resamples, rng)
    own, target = np.ones((1, num)), np.array(target_shares(settings))
    before, after = (as_fd_counts(settings, seen[side]) for side in ("before", "after"))
    fds, again = (
        [discrepancies(side, prompts, target, weight) for side in (before, after)] for weight in (own, weights)
    )
    fall = estimated(float(fds[0][0] - fds[1][0]), again[0] - again[1], num)
    obeyed = [np.equal(hard_labels(seen[side]), wanted)[wanted >= 0].astype(float) for side in ("before", "after")]
    gain = obeyed[1] - obeyed[0]
    more = estimated(float(gain.mean()), share_of(gain, weights[:, wanted >= 0]), len(gain), 1 / num)
    closer, to_twin, to_stranger = _closer(inputs, steered, twins, prompts)
    near = estimated(float(np.nanmean(closer)), share_of(closer, weights), num)
    findings = [
        _nothing_tuned(inputs),
        Finding(
            "confirmation.fd", "FD falls on prompts and seeds that neither probes nor searches had.",
            fall.value, fall.interval_95, "FD",
            0.0, LEAST_FALL, fall.p_above(0.0), f"FD {fds[0][0]:.3f} unsteered, {fds[1][0]:.3f} steered", num, "images",
        ),
        Finding(
            "confirmation.obeyed", "More images show what they are steered to than unsteered.",
            more.value, more.interval_95, "share of images", 0.0, LEAST_OBEYED, more.p_above(0.0),
            f"{obeyed[0].mean():.3f} unsteered, {obeyed[1].mean():.3f} steered", len(gain), "images",
        ),
        Finding(
            "confirmation.clip_i", "A steered picture is nearer to its twin than another seed's.",
            near.value, near.interval_95, "CLIP-I", 0.0, LEAST_CLOSER, near.p_above(0.0),
            f"CLIP-I {to_twin:.3f} to its twin, {to_stranger:.3f} between other seeds of its prompt", num, "images",
        ),
    ]  # fmt: skip
    return Found(findings, {}, {})


def _nothing_tuned(inputs: AuditInputs) -> Finding:
    """Return the share of evaluation images whose prompt and seed neither probes nor tuning had."""
    settings, jobs = inputs.settings, evaluation_jobs(inputs.settings)
    budget = max(budget_for(len(settings.attribute.options)).num_unsteered, settings.audit.chosen.layer_images)
    chose = [*probe_jobs(settings), *tuning_jobs(settings, budget)]
    seeds, prompts = {job.seed for job in chose}, {with_article(job.prompt) for job in chose}
    shown = [with_article(job.prompt) for job in jobs]  # "a engineer" is no other prompt than "an engineer"
    apart = float(
        np.mean([job.seed not in seeds and prompt not in prompts for job, prompt in zip(jobs, shown, strict=True)])
    )
    shared, words = sorted({*shown} & prompts), [f" {prompt} " for prompt in prompts]
    subjects = [one for one in evaluated_subjects(settings.attribute) if any(f" {one} " in prompt for prompt in words)]
    told = f"shared prompts: {', '.join(shared)}" if shared else f"{len(chose)} jobs of probing and tuning share none"
    told += f"; in other templates they had {', '.join(subjects)}" if subjects else ""
    return Finding(
        "confirmation.apart", "No image shown has a prompt or a seed that probes or searches had.", apart,
        (apart, apart),
        "share of images", 0.0, 1.0, 0.0 if apart == 1 else 1.0, told, len(jobs), "images",
    )  # fmt: skip


def _closer(
    inputs: AuditInputs, steered: list[ImageRow], twins: list[ImageRow], prompts: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """Return CLIP-I of each image with its twin less that of the twin with the next seed's of its prompt, and both."""
    after, before = (inputs.judging.embed(rows) for rows in (steered, twins))
    others = np.arange(len(prompts))
    for prompt in np.unique(prompts):
        own = np.flatnonzero(prompts == prompt)
        others[own] = np.roll(own, 1)
    twin, stranger = mapped_cosine(after, before), mapped_cosine(before, before[others])
    return twin - stranger, float(np.nanmean(twin)), float(np.nanmean(stranger))
