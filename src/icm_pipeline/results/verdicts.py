"""What an audit found: of each claim its effect, what could have refuted it, and the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from icm_pipeline.results.evaluation import Interval
from icm_pipeline.results.records import Record

LEVEL = 0.05
# Differences of these units cannot be larger than 1 in either direction. Scaled accuracies are: they are differences of
# leads.
WITHIN_1 = frozenset({
    "share of images", "share of the best k", "share of sets beaten", "balanced accuracy", "total variation", "kappa",
    "Kendall's tau", "Spearman's rho", "FD",
})  # fmt: skip
Verdict = Literal["supported", "refuted", "undecided"]


@dataclass(frozen=True)
class Finding:
    """A claim with what was measured of it; a larger effect always speaks for it."""

    claim: str
    """Its name, `<group>.<what>`."""
    says: str
    """The claim in one sentence, without a figure."""
    effect: float
    interval_95: Interval
    unit: str
    """What the effect is a difference or a share of, as `accuracy`, `FD`, `share of images`."""
    null: float
    """The effect if the claim were wrong, which `p` is the probability under."""
    least: float
    """The smallest effect that would count."""
    p: float
    """One-sided: of an effect as large as the one found, were it `null`."""
    control: str
    """What could have refuted the claim, with its figure."""
    num: int
    of: str
    """What `num` counts, the units that were resampled, as `images`."""


@dataclass(frozen=True)
class Table:
    """Figures behind a claim, for the figures of a page."""

    columns: list[str]
    rows: list[list[str | float]]


@dataclass(frozen=True)
class Found:
    """What one group of claims came to."""

    findings: list[Finding]
    tables: dict[str, Table]
    """Kept as `<group>-<name>.csv`."""
    left_out: dict[str, str]
    """{claim: why it could not be asked of this model or attribute}."""


@dataclass(frozen=True)
class Claim:
    """A finding among all that were made at once."""

    finding: Finding
    p_adjusted: float
    """Holm's, over the claims of the audit."""
    verdict: str
    command: str
    """Repeats it, from what is on disk."""


@dataclass(frozen=True)
class Verdicts(Record):
    """What stage=audit found."""

    FILE = "verdicts.json"
    claims: list[Claim]
    left_out: dict[str, str]


def judged(findings: Sequence[Finding], commands: Sequence[str]) -> list[Claim]:
    """Return the findings with their verdicts, the p-values adjusted for being made together.

    Intervals are cut where their unit ends.
    """
    findings = [replace(finding, interval_95=possible(finding.interval_95, finding.unit)) for finding in findings]
    adjusted = holm(np.array([finding.p for finding in findings]))
    return [
        Claim(finding, float(p), verdict_of(finding, float(p)), command)
        for finding, p, command in zip(findings, adjusted, commands, strict=True)
    ]


def possible(interval: Interval, unit: str) -> Interval:
    """Return what of an interval can be, in its unit."""
    low, high = interval
    return (max(-1.0, low), min(1.0, high)) if unit in WITHIN_1 else interval


def verdict_of(finding: Finding, p_adjusted: float) -> Verdict:
    """Return what a finding says of its claim.

    Refuted: the whole interval is below the smallest effect that counts. Supported: the effect is at least that, the
    whole interval above the effect of a wrong claim, and p below 0.05 after adjusting. Otherwise undecided.
    """
    low, high = finding.interval_95
    if high < finding.least:
        return "refuted"
    if finding.effect >= finding.least and low > finding.null and p_adjusted < LEVEL:
        return "supported"
    return "undecided"


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values [n] adjusted by Holm's step-down procedure.

    References:
        A Simple Sequentially Rejective Multiple Test Procedure, 1979. https://www.jstor.org/stable/4615733
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
