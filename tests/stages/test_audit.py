"""The audit's own part: groups of claims are asked once, judged together, and shown on a page."""

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.table import STAGES, stages_of
from icm_pipeline.report.audit_page import READ, claim_cells
from icm_pipeline.results.records import from_json
from icm_pipeline.results.verdicts import Claim, Finding, Found, Table, Verdicts
from icm_pipeline.stages import audit

Compose = Callable[..., Settings]
JUDGE = "icm_pipeline.evaluation.claims.judge"
COMMAND = "python -m icm_pipeline stage=audit seed=3"


def finding(claim: str, p: float) -> Finding:
    return Finding(
        claim, f"The claim | {claim}", 0.3, (0.2, 0.4), "accuracy", null=0.0, least=0.1, p=p,
        control="chance gives 0.5", num=40, of="images",
    )  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put two groups of claims in the place of their modules; return the names of those that were asked."""
    names: list[str] = []

    def group(name: str, p: float) -> SimpleNamespace:
        def found(inputs: AuditInputs) -> Found:
            names.append(name)
            table = {"layers": Table(["layer", "accuracy"], [["a", 0.5]])}
            return Found([finding(f"{name}.it_works", p)], table, {f"{name}.other": "no such layers"})

        return SimpleNamespace(found=found)

    for name, p in (("kinds", 0.04), ("judge", 0.001)):
        monkeypatch.setitem(sys.modules, f"icm_pipeline.evaluation.claims.{name}", group(name, p))
    return names


@pytest.fixture
def context(settings_with: Compose, tmp_path: Path) -> StageContext:
    settings = settings_with("audit.claims=[kinds,judge]", f"paths.outputs={tmp_path / 'outputs'}")
    folder = tmp_path / "outputs" / "artifacts" / "audit" / "a.partial"
    folder.mkdir(parents=True)
    return StageContext(settings, {}, folder, command=COMMAND)


def verdicts(context: StageContext) -> Verdicts:
    found: Verdicts = from_json(Verdicts, json.loads((context.folder / Verdicts.FILE).read_text()))
    return found


def test_every_claim_gets_a_verdict_among_all_and_the_command_that_repeats_it(
    context: StageContext, asked: list[str]
) -> None:
    audit.run(context)
    claims = verdicts(context).claims
    assert [claim.finding.claim for claim in claims] == ["kinds.it_works", "judge.it_works"]
    assert [claim.p_adjusted for claim in claims] == pytest.approx([0.04, 0.002])
    assert [claim.verdict for claim in claims] == ["supported", "supported"]
    assert claims[0].command == f"{COMMAND} 'audit.claims=[kinds]'"
    assert verdicts(context).left_out == {"kinds.other": "no such layers", "judge.other": "no such layers"}


def test_an_audit_that_was_killed_asks_only_what_is_missing(
    context: StageContext, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sys.modules[JUDGE]

    def killed(inputs: AuditInputs) -> Found:
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, JUDGE, SimpleNamespace(found=killed))
    with pytest.raises(KeyboardInterrupt):
        audit.run(context)
    assert not (context.folder / Verdicts.FILE).exists()
    monkeypatch.setitem(sys.modules, JUDGE, whole)
    audit.run(context)
    assert asked == ["kinds", "judge"]
    assert len(verdicts(context).claims) == 2


def test_the_page_and_the_table_show_every_claim(context: StageContext, asked: list[str]) -> None:
    audit.run(context)
    page = (context.folder / "audit.md").read_text()
    assert "The claim / kinds.it_works" in page
    assert "0.300 (0.200 to 0.400) accuracy" in page
    assert "Not asked: `kinds.other`: no such layers" in page
    assert (context.folder / "claims.png").stat().st_size > 1000
    with (context.folder / "claims.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["p adjusted"]) for row in rows] == pytest.approx([0.04, 0.002])
    assert [row["verdict"] for row in rows] == ["supported", "supported"]
    assert rows[1]["control"] == "chance gives 0.5"


def test_the_page_rounds_p_and_names_a_margin() -> None:
    usual = finding("kinds.it_works", 0.04)
    allowed = replace(usual, null=-0.05, least=-0.05)
    for found, p, cells in ((allowed, 2e-97, ("-0.05 (margin)", "< 0.001")), (usual, 0.0412, ("0.1", "0.041"))):
        row = dict(zip(READ, claim_cells(Claim(found, p, "supported", COMMAND)), strict=True))
        assert (row["counts from"], row["p (Holm)"]) == cells


def test_all_stages_audit_only_if_they_are_asked_to(settings_with: Compose) -> None:
    assert "audit" not in stages_of(settings_with())
    stages = stages_of(settings_with("audit.included=true"))
    assert {"named", "causal", "push", "audit"} <= set(stages)
    assert stages.index("causal") < stages.index("select") < stages.index("push") < stages.index("audit")


def test_a_group_of_claims_needs_no_more_than_it_reads(settings_with: Compose) -> None:
    settings = settings_with("audit.claims=[separability]")
    assert STAGES["audit"].needs(settings) == ("generate", "label")


def test_the_size_of_an_audit_is_part_of_its_keys_and_of_no_other(settings_with: Compose) -> None:
    full, quick = (Keys(settings_with("audit.included=true", f"audit.size={size}")) for size in ("full", "quick"))
    changed = {name for name in stages_of(full.settings) if full.key(name) != quick.key(name)}
    assert changed == {"named", "causal", "push", "audit"}


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("audit.claims=[beauty]", "audit.claims has 'beauty'"),
        ("audit.size=huge", "audit.size=huge is not known"),
        ("audit.other_subjects=['']", "audit.other_subjects contains an empty prompt"),
        ("audit.other_subjects=[true]", "audit.other_subjects contains True"),
    ],
)
def test_what_an_audit_cannot_do_is_refused(settings_with: Compose, word: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("[", r"\[")):
        settings_with(word)
