"""Judge the steered images and their unsteered twins: FD per prompt, CLIP-I, obedience, drift of other attributes."""

import csv
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icm_pipeline.artifacts import write_json
from icm_pipeline.image_sets import STEERING, ImageRow, Pictures, read_table
from icm_pipeline.labelers.clip import ClipJudge
from icm_pipeline.metrics.fairness import bootstrap_interval, discrepancy_by_prompt, expected_floor
from icm_pipeline.metrics.outcomes import hard_labels, share_kept, share_obeying
from icm_pipeline.metrics.similarity import mapped_cosine, pair_by_id
from icm_pipeline.stage_table import StageContext
from icm_pipeline.stages.models import check_device, labeler_of

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]


def run(context: StageContext) -> None:
    settings = context.settings
    attribute, options = settings.attribute, list(settings.attribute.options)
    rows, twins = read_table(context.parents["steer"]), read_table(context.parents["originals"])
    twins = [twins[index] for index in pair_by_id([row.image_id for row in rows], [twin.image_id for twin in twins])]
    steered, originals = Pictures(rows), Pictures(twins)
    judge = labeler_of(settings.judge, "judge")
    questions = {other.name: other.options for other in settings.evaluate.drift.values()}
    questions[attribute.name] = attribute.options
    judged_before, judged_after = judge.label(originals, questions), judge.label(steered, questions)
    before, after = judged_before[attribute.name], judged_after[attribute.name]
    clip = settings.evaluate.clip
    check_device(clip.device, "evaluate.clip.device")
    encoder = ClipJudge(clip.model, clip.path, clip.batch_size, clip.device)
    similarity = mapped_cosine(encoder.embed_images(steered), encoder.embed_images(originals))
    kept = {name: share_kept(judged_before[name], judged_after[name]) for name in questions if name != attribute.name}
    wanted = np.array([options.index(row.option) for row in rows])
    target = np.array(settings.method.target_shares or np.full(len(options), 1 / len(options)))
    prompts = [row.prompt for row in rows]
    rng = np.random.default_rng(settings.seed)

    def discrepancy(probabilities: Floats) -> dict[str, Any]:
        by_prompt = discrepancy_by_prompt(probabilities, prompts, target)
        interval = bootstrap_interval(probabilities, prompts, settings.evaluate.bootstrap, rng, target)
        return {"mean": float(np.mean(list(by_prompt.values()))), "interval_95": interval, "by_prompt": by_prompt}

    together = max(1, settings.model.batch_size // len(set(prompts)))  # a batch holds this many images of one prompt
    floor = expected_floor(settings.evaluate.images_per_prompt, target, settings.method.assignment, together, rng)
    metrics: dict[str, Any] = {
        "model": settings.model.name,
        "attribute": attribute.name,
        "steering": context.parents["steer"].read_json(STEERING),
        "num_images": len(rows),
        "unseen": {"originals": int((hard_labels(before) < 0).sum()), "steered": int((hard_labels(after) < 0).sum())},
        "fd_original": discrepancy(before),
        "fd": discrepancy(after),
        "fd_floor": floor,
        "clip_i": float(similarity.mean()),
        "obeyed": share_obeying(after, wanted),
        "obeyed_by_option": {
            option: share_obeying(after[wanted == index], wanted[wanted == index])
            for index, option in enumerate(options)
            if (wanted == index).any()
        },
        "kept": kept,
        "shares": {"original": _shares(before, prompts, options), "steered": _shares(after, prompts, options)},
    }
    write_json(context.folder / "metrics.json", metrics)
    _write_images_table(context, rows, options, before, after, similarity)
    with (context.folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["metric", "value"], *_metrics_rows(metrics)])
    log.info(
        "evaluate: FD %.3f to %.3f, CLIP-I %.3f, obeyed %.1f %%", metrics["fd_original"]["mean"],
        metrics["fd"]["mean"], metrics["clip_i"], 100 * metrics["obeyed"],
    )  # fmt: skip


def _shares(probabilities: Floats, prompts: list[str], options: list[str]) -> dict[str, dict[str, float]]:
    """Return the share of images that show each option, per prompt."""
    labels, rows = hard_labels(probabilities), np.array(prompts)
    return {
        prompt: {option: float((labels[rows == prompt] == i).mean()) for i, option in enumerate(options)}
        for prompt in dict.fromkeys(prompts)
    }


def _write_images_table(
    context: StageContext, rows: list[ImageRow], options: list[str], before: Floats, after: Floats, clip_i: Floats
) -> None:
    with (context.folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = [f"{when}_{option}" for when in ("original", "steered") for option in options]
        writer.writerow(["id", "prompt", "seed", "steered_to", "clip_i", *names])
        for row, p, q, similarity in zip(rows, before, after, clip_i, strict=True):
            numbers = [f"{value:.6f}" for value in (similarity, *p, *q)]
            writer.writerow([row.image_id, row.prompt, row.seed, row.option, *numbers])


def _metrics_rows(metrics: dict[str, Any]) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["fd_original/mean", metrics["fd_original"]["mean"]],
        ["fd/mean", metrics["fd"]["mean"]],
        ["fd/floor", metrics["fd_floor"]],
        ["clip_i/mean", metrics["clip_i"]],
        ["obeyed/mean", metrics["obeyed"]],
    ]
    for name in ("fd_original", "fd"):
        rows += [[f"{name}/{prompt}", value] for prompt, value in metrics[name]["by_prompt"].items()]
    rows += [[f"obeyed/{option}", value] for option, value in metrics["obeyed_by_option"].items()]
    return rows + [[f"kept/{name}", value] for name, value in metrics["kept"].items()]
