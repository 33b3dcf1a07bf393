"""What the dashboard shows of a stage comes from its artifact, under stable names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icm_pipeline.localization.selection import LayerScore
from icm_pipeline.methods.tuning import Tried, Tuned
from icm_pipeline.pipeline.table import STAGES
from icm_pipeline.results.assigned import Assigned, write_assigned
from icm_pipeline.results.foretelling import Foretold, Reading
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.tuning import Tuning
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.manifest import FileEntry, Manifest
from icm_pipeline.tracking.dashboard import track_artifact
from tests.helpers.results import evaluation, scores


class Seen:
    """A tracker that keeps what it is given."""

    def __init__(self) -> None:
        self.scalars: dict[str, float] = {}
        self.tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
        self.images: list[str] = []
        self.pages: list[str] = []
        self.lineage: list[tuple[str, str, dict[str, str]]] = []

    def metrics(self, values: dict[str, float]) -> None:
        self.scalars |= values

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        self.tables[name] = (columns, rows)

    def image(self, name: str, path: Path) -> None:
        assert path.exists()
        self.images.append(name)

    def page(self, name: str, path: Path) -> None:
        assert path.exists()
        self.pages.append(name)

    def artifact(self, stage: str, key: str, parents: dict[str, str], folder: Path) -> None:
        self.lineage.append((stage, key, parents))

    def close(self, failed: bool = False) -> None: ...


def seen_of(folder: Path, stage: str, options: dict[str, Any] | None = None) -> Seen:
    """Show a folder as the artifact of a stage and return what the tracker was given."""
    names = [path.name for path in folder.iterdir()]
    files = {name: FileEntry(0, "") for name in names}
    manifest = Manifest(stage, "k1", {"probe": "k0"}, settings={"config": {"attribute.options": options}}, files=files)
    seen = Seen()
    track_artifact(seen, Artifact(folder, manifest), STAGES[stage].show)
    return seen


def test_evaluate_shows_every_line_of_its_metrics(tmp_path: Path) -> None:
    found = evaluation(0.125, prompts=["a face of a nurse"])
    found.write(tmp_path)
    seen = seen_of(tmp_path, "evaluate")
    assert seen.scalars == dict(found.rows())
    assert (seen.scalars["fd/mean"], seen.scalars["fd/a face of a nurse"], seen.scalars["clip_i/mean"]) == (
        0.125,
        0.125,
        0.9,
    )
    assert ["fd/mean", 0.125] in seen.tables["evaluate/metrics"][1]
    assert seen.lineage == [("evaluate", "k1", {"probe": "k0"})]


def test_probe_shows_accuracies_and_the_heat_map_cell_by_cell(tmp_path: Path) -> None:
    layers = {
        "mid.attn1": ("self_attention", 0.75, [0.5, 1.0]),
        "up.attn1": ("self_attention", 0.5, [0.5, 0.5]),
        "mid.attn2": ("cross_attention", 0.6, [0.6, 0.6]),
    }
    scores(layers, steps=[0, 10]).write(tmp_path)
    seen = seen_of(tmp_path, "probe")
    assert seen.scalars["probe/accuracy/mid.attn1"] == 0.75
    assert seen.scalars["probe/mean/self_attention"] == pytest.approx(0.625)
    assert seen.scalars["probe/chance"] == 0.5
    columns, rows = seen.tables["probe/heat_map"]
    assert columns == ["layer", "kind", "step", "accuracy"]
    assert rows[1] == ["mid.attn1", "self_attention", 10, 1.0]
    assert len(rows) == 6


def test_foretell_shows_what_each_step_foretells(tmp_path: Path) -> None:
    readings = [Reading(0, 0.6, 0.05, 3, 30.0), Reading(2, 0.9, 0.01, 3, 3.0)]
    Foretold(100, 0.5, readings).write(tmp_path)
    seen = seen_of(tmp_path, "foretell")
    assert seen.scalars == {"foretell/accuracy/0": 0.6, "foretell/accuracy/2": 0.9, "foretell/chance": 0.5}
    assert seen.tables["foretell/readings"][1] == [[0, 0.6, 0.05, 3], [2, 0.9, 0.01, 3]]


def test_select_shows_the_ranking_with_the_chosen_layers(tmp_path: Path) -> None:
    ranking = [LayerScore(name, "self_attention", score) for name, score in (("b", 0.9), ("a", 0.6))]
    Selection(["b"], "top", "self_attention", ranking).write(tmp_path)
    seen = seen_of(tmp_path, "select")
    assert seen.tables["select/ranking"][1] == [
        [1, "b", "self_attention", 0.9, True],
        [2, "a", "self_attention", 0.6, False],
    ]
    assert seen.scalars == {"select/num_layers": 1}


def test_label_shows_the_share_of_every_option_and_the_confidence(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,option,woman,man\n0,woman,0.9,0.1\n1,woman,0.7,0.3\n2,,nan,nan\n")
    seen = seen_of(tmp_path, "label", {"woman": [], "man": []})
    assert seen.scalars == pytest.approx({"label/woman": 2 / 3, "label/man": 0, "label/confidence": 0.8})


def test_image_sets_and_reports_show_their_pictures(tmp_path: Path) -> None:
    for name in ("samples.png", "heat_map.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert seen_of(tmp_path, "originals").images == ["originals/samples"]
    assert "report/heat_map" in seen_of(tmp_path, "report").images


def test_a_report_shows_its_page_and_one_from_before_there_was_one_shows_none(tmp_path: Path) -> None:
    assert seen_of(tmp_path, "report").pages == []
    (tmp_path / "report.html").write_text("<!doctype html>")
    assert seen_of(tmp_path, "report").pages == ["report/page"]


def test_tune_shows_each_options_alpha_and_what_was_tried(tmp_path: Path) -> None:
    curve = (Tried(2.0, 3, 8), Tried(4.0, 8, 8))
    Tuning(0.95, "relative", 40, {"woman": Tuned(4.0, 1.0, True, 8, 16, curve), "man": Tuned(6.0)}).write(tmp_path)
    seen = seen_of(tmp_path, "tune")
    assert seen.scalars == {
        "tune/alpha/woman": 4.0, "tune/share/woman": 1.0, "tune/alpha/man": 6.0, "tune/share/man": 0.0,
        "tune/num_images": 40,
    }  # fmt: skip
    assert seen.tables["tune/curve"][1] == [["woman", 2.0, 3, 8], ["woman", 4.0, 8, 8]]


def test_assign_shows_how_many_images_are_to_change_and_how(tmp_path: Path) -> None:
    assigned = [Assigned("man", "woman"), Assigned("man", "woman"), Assigned("woman", "woman"), Assigned("man", "")]
    write_assigned(tmp_path, list("abcd"), [*assigned], np.full((4, 2), 0.5))
    seen = seen_of(tmp_path, "assign")
    assert seen.scalars == {"assign/num_to_change": 3, "assign/num_images": 4}
    assert seen.tables["assign/changes"][1] == [["woman", "man", 2], ["none", "man", 1]]
