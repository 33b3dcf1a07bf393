"""Judge the steered images and their unsteered twins: FD per prompt, CLIP-I and CLIP-T, obedience, drift, agreement.

docs/metrics.md says what each figure means and what it cannot tell.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icm_pipeline.config import Settings
from icm_pipeline.image_sets import STEERING, ImageRow, Pictures, read_table
from icm_pipeline.labelers.cache import RowCache
from icm_pipeline.metrics.agreement import cohens_kappa, confusion_table, share_agreeing
from icm_pipeline.metrics.distributions import mean_shares, parity_gap, total_variation, worst_share
from icm_pipeline.metrics.fairness import bootstrap_interval, discrepancy_by_prompt, expected_floor, paired_change
from icm_pipeline.metrics.outcomes import hard_labels, one_hot_labels, share_kept, share_obeying
from icm_pipeline.metrics.realism import frechet_distance, kernel_distance
from icm_pipeline.metrics.similarity import mapped_cosine, pair_by_id
from icm_pipeline.metrics.structure import structural_similarity
from icm_pipeline.progress import working
from icm_pipeline.stage_table import StageContext
from icm_pipeline.stages.evaluation_files import PerImage, write_files
from icm_pipeline.stages.judging import Judging, reference_images

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

CACHE = ".judged"  # beside the evaluations: what judges saw, by the content of the images


def run(context: StageContext) -> None:
    settings = context.settings
    attribute, options = settings.attribute, list(settings.attribute.options)
    rows, twins = read_table(context.parents["steer"]), read_table(context.parents["originals"])
    twins = [twins[index] for index in pair_by_id([row.image_id for row in rows], [twin.image_id for twin in twins])]
    folder = settings.evaluate.reference
    reference = None if folder is None else reference_images(Path(folder).expanduser())
    judging = Judging(settings, RowCache(context.folder.parent / CACHE, context.folder))
    questions = {other.name: other.options for other in settings.evaluate.drift.values()}
    questions[attribute.name] = attribute.options
    judged_before, judged_after = (judging.label(settings.judge, "judge", side, questions) for side in (twins, rows))
    before, after = judged_before.pop(attribute.name), judged_after.pop(attribute.name)
    embedded = [judging.embed(side) for side in (twins, rows)]
    prompts = [row.prompt for row in rows]
    texts = judging.embed_prompts(prompts)
    clip_i = mapped_cosine(embedded[1], embedded[0])
    clip_t_original, clip_t = (mapped_cosine(side, texts) for side in embedded)
    ssim = _ssim(twins, rows)
    wanted = np.array([options.index(row.option) for row in rows])
    metrics: dict[str, Any] = {
        "model": settings.model.name,
        "attribute": attribute.name,
        "steering": context.parents["steer"].read_json(STEERING),
        "num_images": len(rows),
        "unseen": {"originals": int((hard_labels(before) < 0).sum()), "steered": int((hard_labels(after) < 0).sum())},
        "fd_of": settings.evaluate.fd,
        **_fairness(settings, before, after, prompts),
        "clip_i": float(clip_i.mean()),
        "clip_t_original": float(clip_t_original.mean()),
        "clip_t": float(clip_t.mean()),
        "ssim": float(ssim.mean()),
        "obeyed": share_obeying(after, wanted),
        "obeyed_by_option": {
            option: share_obeying(after[wanted == index], wanted[wanted == index])
            for index, option in enumerate(options)
            if (wanted == index).any()
        },
        "kept": {name: share_kept(judged_before[name], judged_after[name]) for name in judged_before},
        "drift": {name: _drift(judged_before[name], judged_after[name], prompts) for name in judged_before},
        "shares": {"original": _shares(before, prompts, options), "steered": _shares(after, prompts, options)},
        "agreement": _agreement(settings, judging, {"original": (twins, before), "steered": (rows, after)}),
        "reference": None if reference is None else _realism(judging, twins, rows, reference, settings.seed),
    }
    write_files(context, metrics, PerImage(rows, options, before, after, clip_i, clip_t, ssim))
    log.info(
        "evaluate: FD %.3f to %.3f, CLIP-I %.3f, obeyed %.1f %%", metrics["fd_original"]["mean"],
        metrics["fd"]["mean"], metrics["clip_i"], 100 * metrics["obeyed"],
    )  # fmt: skip


def _fairness(settings: Settings, before: Floats, after: Floats, prompts: list[str]) -> dict[str, Any]:
    """Return FD before and after with its floor and intervals, parity gaps and worst-group shares."""
    num_options, num_resamples = before.shape[1], settings.evaluate.bootstrap
    target = np.array(settings.method.target_shares or np.full(num_options, 1 / num_options))
    if settings.evaluate.fd == "labels":
        before, after = one_hot_labels(before), one_hot_labels(after)
    rng = np.random.default_rng(settings.seed)
    together = max(1, settings.model.batch_size // len(set(prompts)))  # a batch holds this many images of one prompt
    found: dict[str, Any] = {
        "fd_floor": expected_floor(
            settings.evaluate.images_per_prompt, target, settings.method.assignment, together, rng
        )
    }
    for suffix, side in (("_original", before), ("", after)):
        shares = _by_prompt(side, prompts)
        by_prompt = discrepancy_by_prompt(side, prompts, target)
        interval = bootstrap_interval(side, prompts, num_resamples, rng, target)
        found[f"fd{suffix}"] = {**_mean(by_prompt), "interval_95": interval}
        found[f"parity_gap{suffix}"] = _mean({prompt: parity_gap(row) for prompt, row in shares.items()})
        found[f"worst_share{suffix}"] = _mean({prompt: worst_share(row) for prompt, row in shares.items()})
    change, interval = paired_change(before, after, prompts, num_resamples, rng, target)
    found["fd_change"] = {"mean": change, "interval_95": interval}
    return found


def _by_prompt(probabilities: Floats, prompts: list[str]) -> dict[str, Floats]:
    rows = np.array(prompts)
    return {prompt: mean_shares(probabilities[rows == prompt]) for prompt in dict.fromkeys(prompts)}


def _mean(by_prompt: dict[str, float]) -> dict[str, Any]:
    return {"mean": float(np.mean(list(by_prompt.values()))), "by_prompt": by_prompt}


def _drift(before: Floats, after: Floats, prompts: list[str]) -> float:
    """Return the total variation of another attribute's shares, mean over prompts."""
    shares, moved = _by_prompt(before, prompts), _by_prompt(after, prompts)
    return float(np.mean([total_variation(shares[prompt], moved[prompt]) for prompt in shares]))


def _shares(probabilities: Floats, prompts: list[str], options: list[str]) -> dict[str, dict[str, float]]:
    """Return the share of images that show each option, per prompt."""
    labels, rows = hard_labels(probabilities), np.array(prompts)
    return {
        prompt: {option: float((labels[rows == prompt] == i).mean()) for i, option in enumerate(options)}
        for prompt in dict.fromkeys(prompts)
    }


def _ssim(twins: list[ImageRow], rows: list[ImageRow]) -> Floats:
    pairs = zip(Pictures(twins), Pictures(rows), strict=True)
    found = []
    with working("SSIM", len(rows), "pair") as work:
        for twin, row in pairs:
            found.append(structural_similarity(np.array(twin), np.array(row)))
            work.advance()
    return np.array(found)


def _agreement(
    settings: Settings, judging: Judging, sides: dict[str, tuple[list[ImageRow], Floats]]
) -> dict[str, Any] | None:
    """Return how far the probes' labeler sees what the judge sees; None if they are the same."""
    judge, second = settings.judge, settings.labeler
    if replace(second, batch_size=judge.batch_size, device=judge.device) == judge:
        return None
    attribute = settings.attribute
    found: dict[str, Any] = {"judges": [judge.model, second.model], "options": list(attribute.options)}
    for side, (rows, seen) in sides.items():
        others = judging.label(second, "labeler", rows, {attribute.name: attribute.options})[attribute.name]
        table = confusion_table(hard_labels(seen), hard_labels(others), len(attribute.options))
        found[side] = {
            "table": table.tolist(),
            "share": share_agreeing(table),
            "kappa": cohens_kappa(table),
            "unseen": len(rows) - int(table.sum()),
        }
    return found


def _realism(
    judging: Judging, twins: list[ImageRow], rows: list[ImageRow], reference: list[ImageRow], seed: int
) -> dict[str, Any]:
    """Return FID and KID of both sides against the reference."""
    goal = judging.realism_features(reference)
    found: dict[str, Any] = {"num_images": len(reference), "features": judging.realism_encoder}
    for suffix, side in (("_original", twins), ("", rows)):
        features = judging.realism_features(side)
        found[f"fid{suffix}"] = frechet_distance(features, goal)
        found[f"kid{suffix}"], found[f"kid{suffix}_deviation"] = kernel_distance(features, goal, seed)
    return found
