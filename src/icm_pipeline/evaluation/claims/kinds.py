"""Does self-attention tell the option better than cross-attention and feed-forward layers, at equal width?"""

import numpy as np

from icm_pipeline.arrays import Floats, Floats32
from icm_pipeline.config.choices import KIND_NAMES
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.evaluation.claims.readings import (
    CROSS,
    FEED_FORWARD,
    SELF,
    Readings,
    of_new_prompts,
    share_right,
)
from icm_pipeline.localization.many_probes import Problem
from icm_pipeline.localization.repeated import repeated_folds
from icm_pipeline.metrics.resampling import Estimate, best_on_other_half, clustered
from icm_pipeline.results.verdicts import Finding, Found, Table, possible

LEAST = 0.02  # two images of a hundred: a smaller lead would choose no other layers
COLUMNS = ["kind", "layers", "figure", "accuracy", "low", "high"]


def found(inputs: AuditInputs) -> Found:
    (readings, right), kinds = of_new_prompts(inputs), (SELF, CROSS, FEED_FORWARD)
    present = [kind for kind in kinds if readings.layers_of(kind)]
    left_out = {
        f"kinds.{what}{name}": f"the model records no {KIND_NAMES[kind]} layers."
        for kind, name in ((CROSS, "cross_attention"), (FEED_FORWARD, "feed_forward"))
        for what in ("mean_over_", "best_over_")
        if kind not in present or SELF not in present
    }
    layers = readings.layers_of(*kinds)
    shares, width = at_equal_width(inputs, readings, right, layers)
    by_kind = {kind: shares[[readings.kinds[layer] == kind for layer in layers]] for kind in present}
    rows = {("mean", kind): values.mean(0) for kind, values in by_kind.items()}
    rows |= {("best", kind): _best(inputs, readings, values) for kind, values in by_kind.items()}
    findings = [
        _lead(inputs, readings, what, other, rows[what, SELF], rows[what, other], width)
        for what in ("mean", "best")
        for other in (CROSS, FEED_FORWARD)
        if SELF in present and other in present
    ]
    estimates = _estimates(inputs, readings, np.stack(list(rows.values())), "table")
    table: list[list[str | float]] = [
        [kind, len(by_kind[kind]), what, each.value, *possible(each.interval_95, "balanced accuracy")]
        for (what, kind), each in zip(rows, estimates, strict=True)
    ]
    return Found(findings, {"kinds": Table(COLUMNS, table)}, left_out)


def at_equal_width(inputs: AuditInputs, readings: Readings, right: Floats32, layers: list[str]) -> tuple[Floats, int]:
    """Return the share right [layers, n] of probes as wide as the narrowest of the layers, and that width.

    right: what probes of each layer's own width told, which serve where all are equally wide.
    """
    widths = [readings.width(layer) for layer in layers]
    width = min(widths)
    if width == max(widths):
        return share_right(right[[list(readings.kinds).index(layer) for layer in layers]]), width
    size, share = inputs.size, inputs.settings.probe.test_share
    splits = repeated_folds(readings.labels, readings.prompts, size.num_splits, share, inputs.rng("new prompts"))
    problems = [Problem(readings.labels, split) for split in splits]
    return share_right(readings.told_right(inputs, f"probes of width {width}", problems, layers, width)), width


def _best(inputs: AuditInputs, readings: Readings, shares: Floats) -> Floats:
    """Return the share right [n] in the layer that is best on the other half of the prompts; all kinds see the same."""
    rng = inputs.rng("halves of kinds")
    return best_on_other_half(shares, readings.labels, readings.prompts, inputs.size.num_splits, rng)


def _estimates(inputs: AuditInputs, readings: Readings, values: Floats, what: str) -> list[Estimate]:
    return clustered(values, readings.labels, readings.prompts, inputs.size.num_resamples, inputs.rng(what))


def _lead(
    inputs: AuditInputs, readings: Readings, what: str, other: str, ours: Floats, theirs: Floats, width: int
) -> Finding:
    lead, first, second = _estimates(inputs, readings, np.stack([ours - theirs, ours, theirs]), f"{what} {other}")
    words = {"mean": "Self-attention tells", "best": "The best self-attention layer tells"}[what]
    against = {"mean": f"{KIND_NAMES[other]} layers", "best": f"the best {KIND_NAMES[other]} layer"}[what]
    return Finding(
        f"kinds.{what}_over_{other}", f"{words} the option better than {against} of equal width.", lead.value,
        lead.interval_95, "balanced accuracy", 0.0, LEAST, lead.p_above(0.0),
        f"{against}: {second.value:.3f}, self-attention: {first.value:.3f}, both {width} wide", lead.num, "prompts",
    )  # fmt: skip
