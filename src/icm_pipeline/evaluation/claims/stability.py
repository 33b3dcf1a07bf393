"""Would other images rank the layers alike, and how many images does that take?"""

import logging
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from icm_pipeline.arrays import Floats, Floats32, Ints
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.evaluation.claims.readings import Readings, of_new_prompts, share_right
from icm_pipeline.localization.many_probes import Problem
from icm_pipeline.localization.repeated import repeated_folds
from icm_pipeline.metrics.ranking import best_of, over_halvings, overlap, tau
from icm_pipeline.metrics.resampling import balanced_means, resampled_means
from icm_pipeline.results.verdicts import Finding, Found, Table

LEAST_SHARED = 0.5  # of the best k: if halves share less, other images choose other layers
LEAST_TAU = 0.3  # two pairs of layers in the same order for each in the other
PARTS = (8, 4)  # into how many the images are cut for the curve, beside halves
PAIRS = 10  # of parts of each size: enough for a curve
FEWEST = 30  # images of a part
log = logging.getLogger(__name__)


def found(inputs: AuditInputs) -> Found:
    (readings, right), chosen, size = of_new_prompts(inputs), inputs.settings.layers, inputs.size
    layers, k = readings.layers_of(chosen.kind), chosen.k
    if len(layers) <= k:
        why = f"layers.k={k} of {len(layers)} {chosen.kind} layers leaves nothing to rank."
        return Found([], {}, {"stability.top_k": why, "stability.ranking": why})
    everything = right[[list(readings.kinds).index(layer) for layer in layers]]
    try:
        halves = _scores(inputs, readings, layers, 2, size.num_splits)
    except ValueError as error:
        why = f"Halves of the images are too few: {error}"
        return Found([], {}, {"stability.top_k": why, "stability.ranking": why})
    shared = np.array([overlap(pair[0], pair[1], k) for pair in halves])
    taus = np.array([tau(pair[0], pair[1]) for pair in halves])
    top, ranking = over_halvings(shared), over_halvings(taus)
    low, high = top.interval_95
    by_luck = k / len(layers)
    findings = [
        Finding(
            "stability.top_k", f"Other images choose the same best {k} {chosen.kind.replace('_', '-')} layers.",
            top.value, (max(0.0, low), min(1.0, high)), "share of the best k", by_luck, max(LEAST_SHARED, by_luck),
            top.p_above(by_luck), f"random choice of {k} of {len(layers)} layers shares {by_luck:.2f}",
            len(readings.labels), "images in disjoint halves",
        ),
        Finding(
            "stability.ranking", f"Other images rank all {chosen.kind.replace('_', '-')} layers alike.",
            ranking.value, _within(ranking.interval_95), "Kendall's tau", 0.0, LEAST_TAU, ranking.p_above(0.0),
            "two random rankings have tau 0", len(readings.labels), "images in disjoint halves",
        ),
    ]  # fmt: skip
    tables = {
        "chosen": _chosen(inputs, readings, layers, everything, halves, k),
        "curve": _curve(inputs, readings, layers, everything, halves, k),
    }
    return Found(findings, tables, {})


def _within(interval: tuple[float, float]) -> tuple[float, float]:
    return max(-1.0, interval[0]), min(1.0, interval[1])


def _scores(inputs: AuditInputs, readings: Readings, layers: list[str], parts: int, num_pairs: int) -> Floats:
    """Return the scores of the layers on pairs of disjoint parts of the images, [pairs, 2, layers].

    In each part every image is held out once, with all images of its prompt; C, which counts a sum over images, is so
    much larger that only the images differ. Raises ValueError where a part has too few images of an option.
    """
    rng, share, labels = inputs.rng(f"parts {parts}"), inputs.settings.probe.test_share, readings.labels
    problems, ends = list[Problem](), [0]
    for one, other in _pairs(readings, parts, num_pairs, rng):
        for rows in (one, other):
            splits = repeated_folds(labels, readings.prompts, 1, share, rng, rows)
            problems += [Problem(labels, split) for split in splits]
            ends.append(len(problems))
    right = readings.told_right(inputs, f"probes of 1/{parts} of the images", problems, layers, more=parts)
    scores = [balanced_means(share_right(right[:, first:last]), labels) for first, last in pairwise(ends)]
    return np.stack(scores).reshape(num_pairs, 2, len(layers))


def _pairs(readings: Readings, parts: int, num_pairs: int, rng: np.random.Generator) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs of disjoint parts, every option in the same share of both."""
    for _ in range(num_pairs):
        part = np.empty(len(readings.labels), np.int64)
        for option in np.unique(readings.labels):
            rows = rng.permutation(np.flatnonzero(readings.labels == option))
            part[rows] = np.arange(len(rows)) % parts
        yield np.flatnonzero(part == 0), np.flatnonzero(part == 1)


def _chosen(
    inputs: AuditInputs, readings: Readings, layers: list[str], right: Floats32, halves: Floats, k: int
) -> Table:
    """Return how often each layer is among the best k: of resampled prompts, of halves, of single splits."""
    rng, labels, shares = inputs.rng("chosen"), readings.labels, share_right(right)
    of_splits = [balanced_means(share_right(right[:, [split]]), labels) for split in range(right.shape[1])]
    of_resamples = resampled_means(shares, labels, readings.prompts, inputs.size.num_resamples, rng).T
    rows_of_table = _often(of_resamples, k), _often(halves.reshape(-1, len(layers)), k), _often(of_splits, k)
    table: list[list[str | float]] = [
        [layer, float(score), *map(float, often)]
        for layer, score, *often in zip(layers, balanced_means(shares, labels), *rows_of_table, strict=True)
    ]
    return Table(["layer", "accuracy", "over resamples", "over halves", "over splits"], table)


def _often(scores: Floats | list[Floats], k: int) -> Floats:
    """Return the share of scorings [s, layers] in which each layer is among the best k."""
    counts = np.zeros(len(scores[0]))
    for each in scores:
        counts[best_of(each, k)] += 1
    return counts / len(scores)


def _curve(
    inputs: AuditInputs, readings: Readings, layers: list[str], right: Floats32, halves: Floats, k: int
) -> Table:
    """Return over the number of images: what the best k of disjoint parts share, and share with those of all images."""
    whole, num = balanced_means(share_right(right), readings.labels), len(readings.labels)
    sizes = dict[int, Floats]()
    for parts in PARTS:
        if num // parts >= FEWEST:
            try:
                sizes[parts] = _scores(inputs, readings, layers, parts, PAIRS)
            except ValueError as error:
                log.info("stability: no curve of %d images: %s", num // parts, error)
    rows: list[list[str | float]] = []
    for parts, pairs in {**sizes, 2: halves}.items():
        between = np.array([overlap(pair[0], pair[1], k) for pair in pairs])
        beside = np.array([overlap(each, whole, k) for pair in pairs for each in pair])
        taus = np.array([tau(pair[0], pair[1]) for pair in pairs])
        rows.append(
            [num // parts, float(between.mean()), float(between.min()), float(between.max()), float(beside.mean()),
             float(taus.mean()), k / len(layers)]
        )  # fmt: skip
    return Table(["images", "shared", "least", "most", "shared with all", "tau", "by luck"], rows)
