"""Do localizers agree: every one's figure of each layer, and the rank correlation of each pair of them."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from icm_pipeline.metrics.redrawn import rank_correlation
from icm_pipeline.results.effects import Effects
from icm_pipeline.results.localizers import Contributions, Correlation, Injections, Localizers
from icm_pipeline.results.scores import Scores

ACCURACY, CONTRIBUTION, STEERED = "probe accuracy", "contribution", "steered alone"


def injection_of(width: int) -> str:
    """Return what injection into so many layers is called."""
    return f"injection, {width} layer{'' if width == 1 else 's'}"


def compared(
    scores: Scores, injections: Injections | None, contributions: Contributions | None, effects: Effects | None
) -> Localizers:
    """Return every localizer's figures of the layers that text comes in by, and the correlation of each pair.

    A window of several layers counts for the one in its middle.
    """
    asked = {*(injections.layers if injections else ()), *(contributions.layers if contributions else ())}
    layers = [layer for layer in scores.layers if layer in asked]
    found: dict[str, Mapping[str, float]] = {ACCURACY: {layer: scores.layers[layer].score for layer in layers}}
    if injections is not None:
        for width in injections.widths:
            windows = injections.by_centre(width)
            found[injection_of(width)] = {layer: window.effect for layer, window in windows.items()}
    if contributions is not None:
        found[CONTRIBUTION] = {layer: row.mean for layer, row in contributions.layers.items()}
    if effects is not None:
        found[STEERED] = {layer: effects.layers[layer].mean for layer in layers if layer in effects.layers}
    rows = {layer: {name: of[layer] for name, of in found.items() if layer in of} for layer in layers}
    correlations, left_out = list[Correlation](), dict[str, str]()
    for one, other in combinations(found, 2):
        try:
            correlations.append(correlated(one, other, found[one], found[other]))
        except ValueError as error:
            left_out[f"{one} and {other}"] = str(error)
    return Localizers(list(found), rows, correlations, left_out)


def correlated(one: str, other: str, ours: Mapping[str, float], theirs: Mapping[str, float]) -> Correlation:
    """Return how two localizers rank the layers that both know; raises ValueError for fewer than five."""
    both = [layer for layer in ours if layer in theirs]
    rho, fisher = rank_correlation([ours[layer] for layer in both], [theirs[layer] for layer in both])
    low, high = (float(np.tanh(limit)) for limit in fisher.interval_95)
    return Correlation(one, other, rho, (low, high), len(both))
