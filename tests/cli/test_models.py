"""`icm models`: every family, as docs/families.md has it, with what was tested."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import diffusers
import pytest

from icm_pipeline.backbones import registry
from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.registry import ATTACHABLE, FAMILIES
from icm_pipeline.cli import models
from icm_pipeline.cli.models import markdown_table, row_of, run_models

DOCS = Path(__file__).parents[2] / "docs" / "families.md"


def test_the_table_in_docs_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_models(["--markdown"]) == 0
    assert capsys.readouterr().out.strip() == markdown_table()
    assert DOCS.read_text("utf-8").rstrip().endswith(markdown_table())


def test_every_family_is_listed_with_what_was_tested(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_models([]) == 0
    text = capsys.readouterr().out
    assert all(family.name in text for family in FAMILIES)
    assert all(row_of(family)[-1] not in ("", "-") for family in FAMILIES)
    classes = [name.removesuffix("Pipeline") for family in FAMILIES for name in (*family.pipelines, *family.also)]
    assert not [line for line in text.splitlines() if line.endswith(" ")]
    assert all(name in text for name in classes)  # none is cut where the table is searched


def test_what_docs_call_unknown_is_a_class_that_is_refused() -> None:
    unknown = DOCS.read_text("utf-8").partition("## What is not known")[2].partition("\n## ")[0]
    names = re.findall(r"`(\w+Pipeline)`", unknown)
    assert len(names) > 10
    assert all(hasattr(diffusers, name) and name not in ATTACHABLE for name in names)


def test_one_family_is_told_with_its_patterns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_models(["flux2"]) == 0
    text = capsys.readouterr().out
    assert r"(single_)?transformer_blocks\.\d+\.attn" in text
    assert "tested as a denoiser" in text
    assert "- the timestep of every call tells the step" in text


def test_a_class_stands_for_its_family_and_a_family_can_be_a_table_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_models(["FluxFillPipeline"]) == 0
    by_class = capsys.readouterr().out
    assert run_models(["flux"]) == 0
    assert capsys.readouterr().out == by_class
    assert run_models(["flux", "--markdown"]) == 0
    assert [line[:8] for line in capsys.readouterr().out.splitlines()] == ["| family", "| --- | ", "| flux |"]


def test_in_a_terminal_names_of_families_are_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    assert run_models([]) == 0
    text = capsys.readouterr().out
    assert all(f" {family.name} " in text for family in FAMILIES)


def test_a_family_that_is_not_known_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_models(["fluks"]) == 1
    assert "Did you mean flux?" in capsys.readouterr().err


def test_families_of_installed_packages_are_listed_by_their_entry_points(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own: list[Family] = []
    entry = SimpleNamespace(
        name="packaged", value="mine:FAMILY", load=lambda: replace(FLUX, name="packaged", pipelines=("Mine",), also=())
    )
    monkeypatch.setattr(registry, "OWN", own)
    monkeypatch.setattr(models, "OWN", own)
    monkeypatch.setattr(registry, "_LOOKED_UP", set())
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    assert run_models([]) == 0
    assert "packaged" in capsys.readouterr().out
    assert run_models(["--markdown"]) == 0
    assert "packaged" not in capsys.readouterr().out  # docs list what is shipped
