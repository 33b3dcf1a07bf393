"""Is what probes tell more than luck, more than images of one prompt being alike, more than prompts learnt by heart?"""

import numpy as np

from icm_pipeline.arrays import Floats, Floats32, Ints
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.evaluation.claims.readings import Readings, of_new_prompts, share_right, solving
from icm_pipeline.localization.many_probes import Problem
from icm_pipeline.localization.repeated import (
    for_each_layer,
    labels_by_group,
    repeated_folds,
    shuffled,
    standardised,
    told_right,
)
from icm_pipeline.metrics.permutation import tail_probability
from icm_pipeline.metrics.resampling import Estimate, balanced_means, best_on_other_half, clustered
from icm_pipeline.results.verdicts import Finding, Found, Table, possible

LEAST = 0.2  # of the way from chance to no error: four images of ten told wrong are no sign of where a choice is made
LEAST_SELECTIVE = 0.05  # five images of a hundred more than what is learnt by heart
NULL_FOLDS = 2  # holds every image out once, with as few fits as that takes
COLUMNS = [
    "layer", "kind", "torn prompts", "low", "high", "new prompts", "new low", "new high", "by heart", "null 95 %",
]  # fmt: skip


def found(inputs: AuditInputs) -> Found:
    (readings, whole), size, rng = of_new_prompts(inputs), inputs.size, inputs.rng("splits")
    layers, share = readings.layers_of(), inputs.settings.probe.test_share
    torn_splits = repeated_folds(readings.labels, readings.images, size.num_splits, share, rng)
    torn = readings.told_right(
        inputs, "probes of torn prompts", [Problem(readings.labels, split) for split in torn_splits], layers
    )
    random = [Problem(labels_by_group(readings.labels, readings.prompts, rng), split) for split in torn_splits]
    by_heart = readings.told_right(inputs, "probes of random labels", random, layers)
    null, null_of_prompts = (_null_maxima(inputs, readings, groups) for groups in (readings.images, readings.prompts))
    findings = [
        _separable(inputs, readings, "ungrouped", torn, readings.images, null),
        _separable(inputs, readings, "grouped", whole, readings.prompts, null_of_prompts),
        _selective(inputs, readings, share_right(torn), share_right(by_heart)),
    ]
    columns = [
        _of_layers(inputs, readings, torn, readings.images), _of_layers(inputs, readings, whole, readings.prompts),
    ]  # fmt: skip
    heart = balanced_means(share_right(by_heart), readings.labels)
    limit = max(float(np.quantile(each, 0.95)) for each in (null, null_of_prompts))
    rows: list[list[str | float]] = [
        [layer, readings.kinds[layer], *(figure for each in pair for figure in _told(each)),
         float(learnt), limit]
        for layer, *pair, learnt in zip(layers, *columns, heart, strict=True)
    ]  # fmt: skip
    return Found(findings, {"layers": Table(COLUMNS, rows)}, {})


def _told(accuracy: Estimate) -> tuple[float, float, float]:
    return accuracy.value, *possible(accuracy.interval_95, "balanced accuracy")


def _of_layers(inputs: AuditInputs, readings: Readings, right: Floats32, groups: Ints) -> list[Estimate]:
    return clustered(share_right(right), readings.labels, groups, inputs.size.num_resamples, inputs.rng("layers"))


def _separable(
    inputs: AuditInputs, readings: Readings, side: str, right: Floats32, groups: Ints, null: Floats
) -> Finding:
    """Return the accuracy where it is best, layer and step chosen on the other half of the images."""
    size, rng = inputs.size, inputs.rng(f"best {side}")
    places = np.nanmean(right, axis=1).reshape(-1, right.shape[-1])  # layers x steps
    best = best_on_other_half(places, readings.labels, groups, size.num_splits, rng)
    (estimate,) = clustered(best[None], readings.labels, groups, size.num_resamples, rng)
    chance, limit = 1 / len(np.unique(readings.labels)), float(np.quantile(null, 0.95))
    low, high = estimate.interval_95
    says, unit = {
        "ungrouped": ("A linear probe tells the option of images that it was not fitted to.", "images"),
        "grouped": ("A linear probe tells the option of images whose prompts it was not fitted to.", "prompts"),
    }[side]
    return Finding(
        f"separability.{side}", says, estimate.value, (low, min(high, 1.0)), "balanced accuracy", limit,
        max(limit, chance + LEAST * (1 - chance)), tail_probability(estimate.value, null),
        f"{len(null)} shufflings of the labels of {unit}: in 5 % of them the best layer and step reaches {limit:.3f}",
        estimate.num, unit,
    )  # fmt: skip


def _selective(inputs: AuditInputs, readings: Readings, real: Floats, by_heart: Floats) -> Finding:
    """Return how much better the option is told than random labels by prompt, in the layer that tells it best.

    It speaks of what such a probe could do: where activations tell prompts apart, it learns these by heart whatever
    else it tells. Only `grouped` says that it tells more.
    """
    size, rng = inputs.size, inputs.rng("selective")
    labels, prompts = readings.labels, readings.prompts
    state = rng.bit_generator.state
    values = []
    for taken in (real - by_heart, real, by_heart):
        rng.bit_generator.state = state
        values.append(best_on_other_half(real, labels, prompts, size.num_splits, rng, taken))
    less, option, heart = clustered(np.stack(values), labels, prompts, size.num_resamples, rng)
    return Finding(
        "separability.selective", "The best probe tells the option better than it could learn prompts by heart.",
        less.value, less.interval_95, "balanced accuracy", 0.0, LEAST_SELECTIVE, less.p_above(0.0),
        f"random labels by prompt: told with {heart.value:.3f}, the option with {option.value:.3f}", less.num,
        "prompts",
    )  # fmt: skip


def _null_maxima(inputs: AuditInputs, readings: Readings, groups: Ints) -> Floats:
    """Return the largest balanced accuracy over layers and steps for each shuffling of the labels [shuffles].

    Groups [n], images or whole prompts, keep their labels together and are not torn: labels that images of a prompt
    share are told by luck more widely. An image is held out once, where claims average several turns, so that the null
    is the wider of the two.
    """
    rng, how = inputs.rng("shuffles"), solving(inputs)
    null_labels = [shuffled(readings.labels, groups, rng) for _ in range(inputs.size.num_shuffles)]
    problems = [
        Problem(labels, split)
        for labels in null_labels
        for split in repeated_folds(labels, groups, NULL_FOLDS, 1 / NULL_FOLDS, rng)
    ]

    def ask(layer: str) -> Floats:
        right = told_right(standardised(readings.rows(layer)), problems, how)
        shares = np.nanmean(right.reshape(-1, NULL_FOLDS, *right.shape[1:]), axis=1)  # [shuffles, T, n]
        return np.array([balanced_means(each, labels).max() for each, labels in zip(shares, null_labels, strict=True)])

    return np.max(list(for_each_layer("probes of shuffled labels", readings.layers_of(), how.device, ask)), axis=0)
