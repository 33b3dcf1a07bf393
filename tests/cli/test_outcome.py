"""What a job tells at its end: its own figures and pages, and the pages of what it made on the way."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from icm_pipeline.cli.outcome import RANKING_ROWS, outcome_of
from icm_pipeline.config.schema import Settings
from icm_pipeline.localization.selection import LayerScore
from icm_pipeline.results.scores import Selection
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.manifest import FileEntry, Manifest

Compose = Callable[..., Settings]


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Artifact]:
    """Write the artifacts of a selection, a report and an audit."""
    chosen = Selection(["a"], "top", "self_attention", [LayerScore("a", "self_attention", 0.9)])
    files = {
        "select": [Selection.FILE], "report": ["twins.png", "report.html", "report.md"],
        "audit": ["verdicts.json", "claims.png", "audit.md"],
    }  # fmt: skip
    for stage in files:
        (tmp_path / stage).mkdir()
    chosen.write(tmp_path / "select")
    return {
        stage: Artifact(tmp_path / stage, Manifest(stage, "0", files=dict.fromkeys(names, FileEntry(0, ""))))
        for stage, names in files.items()
    }


def pipeline(settings: Settings, made: dict[str, Artifact]) -> Any:
    return SimpleNamespace(settings=settings, find=made.get)


def test_a_whole_run_with_an_audit_names_the_report_and_the_audits_page(
    settings_with: Compose, made: dict[str, Artifact]
) -> None:
    told = outcome_of(pipeline(settings_with("audit.included=true"), made), made["report"])
    report, audit = made["report"].folder, made["audit"].folder
    assert told.files == (report / "report.html", report / "report.md", report / "twins.png", audit / "audit.md")
    assert told.selection == Selection.read(made["select"])
    assert told.ranking_rows == RANKING_ROWS


def test_a_run_without_an_audit_names_none_that_was_made_before(
    settings_with: Compose, made: dict[str, Artifact]
) -> None:
    told = outcome_of(pipeline(settings_with(), made), made["report"])
    assert {path.parent for path in told.files} == {made["report"].folder}


def test_an_audit_on_its_own_names_its_page_and_a_selection_shows_every_layer(
    settings_with: Compose, made: dict[str, Artifact]
) -> None:
    audit = outcome_of(pipeline(settings_with("stage=audit"), made), made["audit"])
    assert made["audit"].folder / "audit.md" in audit.files
    assert audit.selection is None
    selected = outcome_of(pipeline(settings_with("stage=select"), made), made["select"])
    assert (selected.ranking_rows, selected.files) == (None, ())
    assert selected.selection is not None
