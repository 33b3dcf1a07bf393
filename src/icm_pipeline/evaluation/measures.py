"""From pairs of images to a judgement of each, and from there to the figures of the evaluation."""

from dataclasses import dataclass

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.fairness import drift_of, fairness_figures, shares_by_prompt
from icm_pipeline.evaluation.judging import Judging
from icm_pipeline.evaluation.likeness import Likeness, likeness_of, mean_of
from icm_pipeline.evaluation.pairs import ImagePairs
from icm_pipeline.images.table import ImageRow
from icm_pipeline.labelers.base import Questions
from icm_pipeline.metrics.agreement import agreement
from icm_pipeline.metrics.least_change import Choosing
from icm_pipeline.metrics.outcomes import hard_labels, share_kept, share_obeying
from icm_pipeline.metrics.realism import frechet_distance, kernel_distance
from icm_pipeline.results.evaluation import SIDES, Agreement, Evaluation, Realism, SideAgreement

ALL_IMAGES = "all images"  # stands for the prompt of images whose prompts are not known


@dataclass(frozen=True)
class JudgedImage:
    """An image, and what the judge sees in it and in its twin."""

    row: ImageRow
    problem: str
    """Why the image or its twin could not be read, else empty."""
    seen: dict[str, dict[str, Floats]]
    """{side: {attribute: probabilities [K]}}; NaN where the judge sees nothing."""
    likeness: Likeness


def judged_images(settings: Settings, judging: Judging, pairs: ImagePairs, questions: Questions) -> list[JudgedImage]:
    """Return what the judge sees in each image and twin, and their likeness."""
    judge, images = getattr(settings, pairs.judge), []
    seen = {side: judging.label(judge, pairs.judge, rows, questions) for side, rows in pairs.sides.items()}
    likeness = likeness_of(judging, pairs)
    for index, (row, problem, like) in enumerate(zip(pairs.rows, pairs.problems, likeness, strict=True)):
        own = {side: {name: rows[index] for name, rows in found.items()} for side, found in seen.items()}
        images.append(JudgedImage(row, problem, own, like))
    return images


def shown_in(images: list[JudgedImage], side: str, attribute: str) -> Floats:
    """Return the probabilities [n, K] of an attribute on one side."""
    return np.array([image.seen[side][attribute] for image in images])


def figures_of(
    settings: Settings, pairs: ImagePairs, images: list[JudgedImage], agreed: Agreement | None, realism: Realism | None
) -> Evaluation:
    """Return all figures of an evaluation; None for those that need unknown twins, prompts or options."""
    name, options = settings.attribute.name, list(settings.attribute.options)
    shown = {side: shown_in(images, side, name) for side in pairs.sides}
    prompts = [image.row.prompt or ALL_IMAGES for image in images]
    wanted = np.array([options.index(image.row.option) if image.row.option else -1 for image in images])
    after, known, like = shown["steered"], wanted >= 0, [image.likeness for image in images]
    chosen_by = _chosen_by(pairs.rows, options)
    members = {option: wanted == index for index, option in enumerate(options) if index in wanted}
    kept, drift, unseen = dict[str, float](), dict[str, float](), dict[str, int]()
    is_drawn = pairs.steering is not None and bool(known.any())
    there = np.array([not image.problem for image in images])
    for other in pairs.others if pairs.twins is not None else ():
        old, new = (shown_in(images, side, other)[there] for side in SIDES)
        moved = drift_of(old, new, np.array(prompts)[there].tolist())
        if moved is not None:
            kept[other], drift[other] = share_kept(old, new), moved
    for side, rows in pairs.sides.items():
        readable = [not row.problem for row in rows]
        unseen["originals" if side == "original" else side] = int(((hard_labels(shown[side]) < 0) & readable).sum())
    return Evaluation(
        model=pairs.name, attribute=name, steering=pairs.steering, num_images=len(images), lost=pairs.lost,
        unseen=unseen, fd_of=settings.evaluate.fd,
        fairness=fairness_figures(settings, shown, prompts, wanted, is_drawn, chosen_by),
        clip_i=mean_of(one.clip_i for one in like), clip_t_original=mean_of(one.clip_t_original for one in like),
        clip_t=mean_of(one.clip_t for one in like), ssim=mean_of(one.ssim for one in like),
        obeyed=share_obeying(after[known], wanted[known]) if known.any() else None,
        obeyed_by_option={option: share_obeying(after[own], wanted[own]) for option, own in members.items()},
        kept=kept, drift=drift,
        shares={side: shares_by_prompt(found, prompts, options) for side, found in shown.items()},
        agreement=agreed, reference=realism,
        left_alone=None if chosen_by is None else float(np.mean([row.is_original for row in pairs.rows])),
    )  # fmt: skip


def _chosen_by(rows: list[ImageRow], options: list[str]) -> Choosing | None:
    """Return what each image showed before, and its trial; None where options were not assigned by that."""
    if any(row.shown is None for row in rows):
        return None
    shown, tried = (
        np.array([options.index(name) if name else -1 for name in names])
        for names in ([row.shown for row in rows], [row.tried for row in rows])
    )
    if any(row.tried is None for row in rows):
        return Choosing(shown)
    return Choosing(shown, tried, np.array([row.turned for row in rows]))


def agreement_of(
    settings: Settings, judging: Judging, pairs: ImagePairs, images: list[JudgedImage]
) -> Agreement | None:
    """Return how often the second judge agrees with the first; None if there is no second."""
    attribute, second, sides = settings.attribute, pairs.second, dict[str, SideAgreement]()
    if second is None:
        return None
    for side, rows in pairs.sides.items():
        asked = {attribute.name: attribute.options}
        others = judging.label(getattr(settings, second), second, rows, asked)[attribute.name]
        labels = hard_labels(shown_in(images, side, attribute.name)), hard_labels(others)
        table, share, kappa = agreement(*labels, len(attribute.options))
        sides[side] = SideAgreement(table.tolist(), share, kappa, len(rows) - int(table.sum()))
    judges = [getattr(settings, judge).model for judge in (pairs.judge, second)]
    return Agreement(judges=judges, options=list(attribute.options), **sides)


def realism_of(judging: Judging, pairs: ImagePairs, reference: list[ImageRow], seed: int) -> Realism:
    """Return FID and KID of each side against the reference."""
    goal, found = judging.realism_features(reference), dict[str, float]()
    for side, rows in pairs.sides.items():
        features = judging.realism_features([row for row in rows if not row.problem])
        suffix = "_original" if side == "original" else ""
        found[f"fid{suffix}"] = frechet_distance(features, goal)
        found[f"kid{suffix}"], found[f"kid{suffix}_deviation"] = kernel_distance(features, goal, seed)
    return Realism(num_images=len(reference), features=judging.realism_encoder, **found)
