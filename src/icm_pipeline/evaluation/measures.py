"""The figures of one evaluation."""

from typing import Any

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.fairness import SUFFIXES, drift_of, fairness_figures, shares_by_prompt
from icm_pipeline.evaluation.judging import Judging
from icm_pipeline.evaluation.likeness import Likeness, mean_of
from icm_pipeline.evaluation.pairs import ImagePairs
from icm_pipeline.images.table import ImageRow
from icm_pipeline.metrics.agreement import agreement
from icm_pipeline.metrics.outcomes import hard_labels, share_kept, share_obeying
from icm_pipeline.metrics.realism import frechet_distance, kernel_distance

Judged = dict[str, dict[str, Floats]]  # side -> attribute -> probabilities [n, K]
ALL_IMAGES = "all images"  # stands for the prompt of images whose prompts are not known


def figures_of(settings: Settings, pairs: ImagePairs, judged: Judged, likeness: Likeness) -> dict[str, Any]:
    """Return what is measured; None for what needs twins, prompts or options where they are not known."""
    name, options = settings.attribute.name, list(settings.attribute.options)
    shown = {side: found[name] for side, found in judged.items()}
    prompts = [row.prompt or ALL_IMAGES for row in pairs.rows]
    wanted = np.array([options.index(row.option) if row.option else -1 for row in pairs.rows])
    after, known = shown["steered"], wanted >= 0
    return {
        "model": pairs.name,
        "attribute": name,
        "steering": pairs.steering,
        "num_images": len(pairs.rows),
        **pairs.facts,
        "unseen": {"originals" if side == "original" else side: _num_unseen(rows, shown[side])
                   for side, rows in pairs.sides.items()},
        "fd_of": settings.evaluate.fd,
        **fairness_figures(settings, shown, prompts, wanted, made_here=pairs.steering is not None),
        "clip_i": mean_of(likeness.clip_i),
        "clip_t_original": mean_of(likeness.clip_t_original),
        "clip_t": mean_of(likeness.clip_t),
        "ssim": mean_of(likeness.ssim),
        "obeyed": share_obeying(after[known], wanted[known]) if known.any() else None,
        "obeyed_by_option": {
            option: share_obeying(after[wanted == index], wanted[wanted == index])
            for index, option in enumerate(options)
            if (wanted == index).any()
        },
        **_others(pairs, judged, prompts),
        "shares": {side: shares_by_prompt(found, prompts, options) for side, found in shown.items()},
    }  # fmt: skip


def _num_unseen(rows: list[ImageRow], probabilities: Floats) -> int:
    """Return how many readable pictures the judge could not see enough in."""
    return int(((hard_labels(probabilities) < 0) & [not row.problem for row in rows]).sum())


def _others(pairs: ImagePairs, judged: Judged, prompts: list[str]) -> dict[str, dict[str, float]]:
    """Return how far other attributes were kept and drifted, over the pairs whose pictures are both there."""
    found: dict[str, dict[str, float]] = {"kept": {}, "drift": {}}
    if pairs.twins is None:
        return found
    there = np.array([not (row.problem or twin.problem) for row, twin in zip(pairs.rows, pairs.twins, strict=True)])
    rows = np.array(prompts)[there].tolist()
    for name in pairs.others:
        before, after = (judged[side][name][there] for side in SUFFIXES)
        drift = drift_of(before, after, rows)
        if drift is not None:
            found["kept"][name], found["drift"][name] = share_kept(before, after), drift
    return found


def options_seen(pairs: ImagePairs, judged: Judged) -> dict[str, dict[str, list[str]]]:
    """Return which option of every other attribute each picture shows {attribute: {side: [n]}}; "" for none."""
    return {
        name: {side: [["", *options][label + 1] for label in hard_labels(judged[side][name])] for side in pairs.sides}
        for name, options in pairs.others.items()
    }


def agreement_of(
    settings: Settings, judging: Judging, pairs: ImagePairs, shown: dict[str, Floats]
) -> dict[str, Any] | None:
    """Return how far a second judge sees what the first does; None if there is none."""
    attribute, second = settings.attribute, pairs.second
    if second is None:
        return None
    judges = [pairs.judge.config.model, second.config.model]
    found: dict[str, Any] = {"judges": judges, "options": list(attribute.options)}
    for side, rows in pairs.sides.items():
        others = judging.label(second.config, second.setting, rows, {attribute.name: attribute.options})
        labels = hard_labels(shown[side]), hard_labels(others[attribute.name])
        table, share, kappa = agreement(*labels, len(attribute.options))
        found[side] = {
            "table": table.tolist(),
            "share": share,
            "kappa": kappa,
            "unseen": len(rows) - int(table.sum()),
        }
    return found


def realism_of(judging: Judging, pairs: ImagePairs, reference: list[ImageRow], seed: int) -> dict[str, Any]:
    """Return FID and KID of each side against the reference."""
    goal = judging.realism_features(reference)
    found: dict[str, Any] = {"num_images": len(reference), "features": judging.realism_encoder}
    for side, rows in pairs.sides.items():
        features, suffix = judging.realism_features([row for row in rows if not row.problem]), SUFFIXES[side]
        found[f"fid{suffix}"] = frechet_distance(features, goal)
        found[f"kid{suffix}"], found[f"kid{suffix}_deviation"] = kernel_distance(features, goal, seed)
    return found
