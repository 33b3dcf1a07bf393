"""The HTML pages of a run and of a sweep: what stands in them, that all text is escaped, and that they need nothing."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.report.html import run_page
from icm_pipeline.report.html.sweep_page import _commands
from icm_pipeline.report.page import write_page
from icm_pipeline.report.rows import figure_rows
from icm_pipeline.stages import report
from tests.helpers.pages import HOSTILE, MISSED, OPTIONS, made_run, made_sweep, written, written_sweep
from tests.helpers.results import PROMPTS, compared


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    return written(folder, made_run(folder / "artifacts", audited=True, others=[compared(key="other", fd=0.3)]))


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sweep")
    return written_sweep(folder, made_sweep(folder))


def test_the_command_of_a_sweep_is_read_back_by_hydra_whatever_its_folder_is_called(tmp_path: Path) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for folder in (tmp_path / "alpha=3,k=(2) today", Path("multirun/night-1")):
        (_, command), _ = _commands(replace(made_sweep(tmp_path / folder.name), folder=folder))
        words = shlex.split(command)[3:]
        assert [override.value() for override in OverridesParser.create().parse_overrides(words)] == [
            "report", str(folder)
        ]  # fmt: skip
    assert command.endswith("sweep=multirun/night-1")


def test_both_pages_of_a_run_have_the_same_figures(tmp_path: Path, page: str) -> None:
    run = made_run(tmp_path / "artifacts")
    markdown = write_page(tmp_path / "report.md", run.this, {}, [run.this], ()).read_text()
    cells = {text.strip() for text in Elements(page).text}
    for row in figure_rows(run.this):
        assert {row.name, row.steered} - {""} <= cells
        assert row.name in markdown and row.steered in markdown


def test_every_picture_of_a_run_is_there_and_told_what_became_of_it(page: str) -> None:
    data, elements = data_of(page), Elements(page)
    twins = data["shown"]["this"]["twins"]
    assert [twin["fate"] for twin in twins.values()] == ["obeyed"] * (8 - MISSED) + ["missed"] * MISSED
    assert twins["000007"]["caption"] == "not man"
    assert [item["data-id"] for item in elements.named("li") if "data-id" in item] == list(twins)
    shown = {image["data-picture"] for image in elements.named("img") if "data-picture" in image}
    assert shown | {twin["picture"] for twin in twins.values()} == set(data["pictures"])
    assert len(set(data["pictures"].values())) == 16


def test_pictures_can_be_filtered_by_prompt_option_and_outcome(page: str) -> None:
    values = [option["value"] for option in Elements(page).named("option")]
    assert values == ["", *PROMPTS, "", *OPTIONS, "", "missed", "obeyed", "missed", "made"]


def test_a_run_tells_what_repeats_it_and_what_made_it(page: str) -> None:
    text = Elements(page).text
    assert "python -m icm_pipeline alpha=1.5" in text
    assert "python -m icm_pipeline stage=report alpha=1.5 force=true" in text
    assert {"probe", "originals", "steer", "evaluate", "audit"} <= set(text)
    assert "icm_pipeline 1" in text


def test_the_audits_claims_are_there_if_there_was_one(tmp_path: Path, page: str) -> None:
    assert "The selected layers move the choice " in Elements(page).text
    without = written(tmp_path, made_run(tmp_path / "artifacts"))
    assert "The audit" not in without and "Beside the other runs" not in without


@pytest.mark.parametrize(
    ("words", "is_there"), [((), True), (("audit.included=true",), True), (("audit.included=true",), False)]
)
def test_the_report_takes_the_claims_of_an_audit_that_was_asked_for_and_is_there(
    tmp_path: Path, settings_with: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...],
    is_there: bool,
) -> None:  # fmt: skip
    for name in ("plot_twins", "plot_discrepancy", "plot_heat_map", "plot_ranking"):
        monkeypatch.setattr(report, name, lambda path, *ignored: path)
    parents = dict(made_run(tmp_path, audited=True).artifacts)
    found = {"audit": parents.pop("audit")}
    found = found if is_there else {}
    report.run(StageContext(settings_with(*words), parents, tmp_path, (parents["evaluate"],), find=found.get))
    has_claims = "causality.selected" in (tmp_path / "report.html").read_text("utf-8")
    assert has_claims == bool(words and is_there)


def test_runs_with_the_same_originals_are_points_of_a_chart_and_rows_of_a_table(page: str) -> None:
    elements = Elements(page)
    points = [button for button in elements.named("button") if "data-tip" in button]
    assert [point["data-select"] for point in points] == ["1", "2"]
    assert points[1]["data-tip"] == "best 2 self-attention, alpha 1.5: FD 0.300, CLIP-I 0.900"
    assert [row["data-row"] for row in elements.named("tr") if "data-row" in row] == ["1", "2"]


def test_of_many_images_the_page_tells_how_many_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_page, "MOST_PAIRS", 4)
    page = written(tmp_path, made_run(tmp_path / "artifacts"))
    assert "4 of 8 pairs are in this" in page
    fates = [twin["fate"] for twin in data_of(page)["shown"]["this"]["twins"].values()]
    assert fates.count("missed") == MISSED and len(fates) == 4


def check_alone(page: str) -> None:
    """Check that a page asks for nothing outside itself."""
    elements = Elements(page)
    for tag, attributes in elements.found:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            target = attributes.get(name) or ""
            assert not target or target.startswith(("data:", "#")), (tag, target)
    assert "@import" not in page and "url(" not in page and "fetch(" not in page
    (policy,) = [meta["content"] for meta in elements.named("meta") if "http-equiv" in meta]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")


def test_a_page_needs_no_other_file_and_no_network(page: str, sweep_page: str) -> None:
    check_alone(page)
    check_alone(sweep_page)


def check_escaped(page: str) -> None:
    """Check that a page has the scripts and pictures it should, and the hostile text only as text."""
    elements = Elements(page)
    assert len(elements.named("script")) == 2
    assert not [image for image in elements.named("img") if "onerror" in image]
    assert HOSTILE not in page
    assert any(HOSTILE in text for text in elements.text)


def test_what_users_write_is_text_wherever_it_stands(tmp_path: Path) -> None:
    prompts, options = (HOSTILE, "a face of a doctor"), ("<b>woman</b>", "man' onclick='alert(1)")
    page = written(tmp_path, made_run(tmp_path / "artifacts", prompts, options, others=[compared("k", (HOSTILE,))]))
    check_escaped(page)
    assert "<b>woman" not in page
    assert not [name for _, attributes in Elements(page).found for name in attributes if name.startswith("on")]
    twins = data_of(page)["shown"]["this"]["twins"]
    assert {twin["option"] for twin in twins.values()} == set(options)


def test_what_users_write_is_text_in_a_sweep_too(tmp_path: Path) -> None:
    check_escaped(written_sweep(tmp_path, made_sweep(tmp_path, prompts=(HOSTILE, "a face of a doctor"))))


def test_a_sweep_has_every_jobs_pictures_of_the_same_seeds(sweep_page: str) -> None:
    data = data_of(sweep_page)
    assert list(data["shown"]) == ["0", "1", "2"]
    assert {tuple(shown["twins"]) for shown in data["shown"].values()} == {tuple(f"{n:06d}" for n in range(8))}
    assert len(data["pictures"]) == 8 + 3 * 8  # the originals once
    assert data["first"] == "2"  # of the lowest FD


def test_a_sweep_over_alpha_has_a_slider_along_it(sweep_page: str) -> None:
    (series,) = data_of(sweep_page)["series"]
    assert series == {"name": "", "axis": "alpha", "values": ["1", "2", "4"], "jobs": ["0", "1", "2"]}
    assert [field["max"] for field in Elements(sweep_page).named("input") if "max" in field] == []
    assert [field["type"] for field in Elements(sweep_page).named("input")] == ["range"]


def test_every_job_is_a_point_of_each_chart_and_a_row_with_its_command(sweep_page: str) -> None:
    elements = Elements(sweep_page)
    points = [button["data-select"] for button in elements.named("button") if "data-tip" in button]
    assert points == ["0", "1", "2"] * 3  # the front, FD and CLIP-I against alpha
    assert [row["data-row"] for row in elements.named("tr") if "data-row" in row] == ["0", "1", "2"]
    assert "\n".join(f"python -m icm_pipeline alpha={alpha}" for alpha in (1, 2, 4)) in elements.text


def test_a_sweep_of_one_job_has_neither_slider_nor_strips(tmp_path: Path) -> None:
    page = written_sweep(tmp_path, made_sweep(tmp_path, (2.0,)))
    elements = Elements(page)
    assert data_of(page)["series"] == [] and not elements.named("input")
    assert "Side by side" not in elements.text
