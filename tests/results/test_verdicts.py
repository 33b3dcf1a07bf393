"""What an audit says of a claim."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from icm_pipeline.results.records import from_json, to_json
from icm_pipeline.results.verdicts import Finding, Found, Table, holm, judged, verdict_of

FOUND = Finding(
    "group.what", "It works", 0.3, (0.2, 0.4), "accuracy", null=0.0, least=0.1, p=0.001, control="0 by chance",
    num=40, of="images",
)  # fmt: skip


def test_an_effect_that_counts_and_is_not_chance_supports_its_claim() -> None:
    assert verdict_of(FOUND, 0.01) == "supported"


@pytest.mark.parametrize(
    ("effect", "interval", "p"),
    [(0.3, (-0.1, 0.4), 0.01), (0.3, (0.2, 0.4), 0.06), (0.08, (0.05, 0.12), 0.001)],
    ids=["chance could give it", "too many claims at once", "perhaps too small to count"],
)
def test_an_effect_that_may_be_nothing_or_too_small_leaves_its_claim_undecided(
    effect: float, interval: tuple[float, float], p: float
) -> None:
    assert verdict_of(replace(FOUND, effect=effect, interval_95=interval), p) == "undecided"


def test_an_effect_surely_too_small_refutes_its_claim_however_significant() -> None:
    assert verdict_of(replace(FOUND, effect=0.05, interval_95=(0.03, 0.07)), 0.0001) == "refuted"


def test_a_margin_is_kept_only_if_the_whole_interval_lies_above_it() -> None:
    kept = replace(FOUND, effect=0.97, interval_95=(0.955, 0.985), null=0.95, least=0.95)
    assert verdict_of(kept, 0.01) == "supported"
    assert verdict_of(replace(kept, interval_95=(0.94, 0.99)), 0.01) == "undecided"
    assert verdict_of(replace(kept, effect=0.9, interval_95=(0.86, 0.94)), 0.9) == "refuted"


@pytest.mark.parametrize(
    ("unit", "interval", "cut"),
    [
        ("share of images", (0.8, 1.04), (0.8, 1.0)), ("Spearman's rho", (-1.2, 0.1), (-1.0, 0.1)),
        ("balanced accuracy", (0.2, 0.4), (0.2, 0.4)), ("scaled accuracy", (0.8, 1.04), (0.8, 1.04)),
    ],
)  # fmt: skip
def test_an_interval_ends_where_its_unit_does(
    unit: str, interval: tuple[float, float], cut: tuple[float, float]
) -> None:
    (claim,) = judged([replace(FOUND, unit=unit, interval_95=interval)], ["again"])
    assert claim.finding.interval_95 == cut


def test_holm_adjusts_as_its_paper_says() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_keeps_a_single_p_value_and_never_exceeds_one() -> None:
    assert holm(np.array([0.2])) == pytest.approx([0.2])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])
    assert len(holm(np.array([]))) == 0


def test_of_true_nulls_holm_rejects_any_in_five_percent_of_audits() -> None:
    rng = np.random.default_rng(0)
    rejected = np.mean([(holm(rng.random(12)) < 0.05).any() for _ in range(2000)])
    assert 0.03 < rejected < 0.065


def test_a_weaker_claim_is_judged_by_the_p_value_among_all() -> None:
    claims = judged([FOUND, replace(FOUND, p=0.04)], ["one", "two"])
    assert [claim.verdict for claim in claims] == ["supported", "supported"]
    claims = judged([replace(FOUND, p=0.04), replace(FOUND, p=0.04)], ["one", "two"])
    assert [claim.verdict for claim in claims] == ["undecided", "undecided"]
    assert [claim.command for claim in claims] == ["one", "two"]


def test_what_a_group_found_is_read_back_as_it_was(tmp_path: Path) -> None:
    found = Found([FOUND], {"layers": Table(["layer", "accuracy"], [["a", 0.5]])}, {"group.other": "no such layers"})
    assert from_json(Found, to_json(found)) == found
