"""`icm gc` knows what an outputs folder is kept for: evaluations, the newest reports, probes of those who localize.

What a damaged artifact needs is kept as well, or nothing goes.
"""

import json
from pathlib import Path

import pytest

from tests.helpers.shelf import KEYS, call, grow_old, kept_keys, make, make_chain, make_half


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return make_chain(tmp_path)


@pytest.mark.parametrize("stage", ["probe", "select"])
def test_gc_leaves_a_probe_or_selection_from_which_nothing_was_made(outputs: Path, stage: str) -> None:
    make(outputs, stage, "d1" * 8, {"label": "a1" * 8})
    assert call(outputs, "gc", "--yes", "--older-than", "0") == 0
    assert kept_keys(outputs) == {*KEYS.values(), "a1" * 8, "d1" * 8}


def test_gc_removes_a_probe_with_the_steered_images_that_were_not_evaluated(outputs: Path) -> None:
    make(outputs, "probe", "d1" * 8, {"generate": KEYS["generate"]})
    make(outputs, "select", "d2" * 8, {"probe": "d1" * 8})
    make(outputs, "steer", "d3" * 8, {"probe": "d1" * 8, "select": "d2" * 8})
    assert call(outputs, "gc", "--yes", "--older-than", "0") == 0
    assert kept_keys(outputs) == set(KEYS.values())


def test_gc_leaves_what_young_artifacts_were_made_from(outputs: Path) -> None:
    grow_old(outputs)
    make(outputs, "steer", "d3" * 8, {"label": "a1" * 8})
    assert call(outputs, "gc", "--yes") == 0
    assert kept_keys(outputs) == {*KEYS.values(), "a1" * 8, "d3" * 8}


def make_report(outputs: Path, key: str, evaluation: str, created: str) -> Path:
    folder = make(outputs, "report", key, {"evaluate": evaluation})
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "created": created}))
    return folder


def test_gc_leaves_the_newest_report_of_each_evaluation(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(outputs, "evaluate", "e2" * 8, {"steer": KEYS["steer"]})
    for key, evaluation, hour in (("f1", "evaluate", 9), ("f2", "evaluate", 11), ("f3", "evaluate", 10), ("f4", "", 8)):
        make_report(outputs, key * 8, KEYS.get(evaluation, "e2" * 8), f"2026-01-31T{hour:02d}:00:00Z")
    assert call(outputs, "gc", "--yes", "--older-than", "0") == 0
    text = capsys.readouterr().out
    assert kept_keys(outputs) == {*KEYS.values(), "e2" * 8, "f2" * 8, "f4" * 8}
    assert text.count("a newer report of the same evaluation is there") == 2
    assert text.count("no result was made from it") == 2


def test_gc_leaves_older_reports_of_today(outputs: Path) -> None:
    for key in ("f1", "f2"):
        make(outputs, "report", key * 8, {"evaluate": KEYS["evaluate"]})
    assert call(outputs, "gc", "--yes") == 0
    assert {"f1" * 8, "f2" * 8} < kept_keys(outputs)


def damage(outputs: Path, stage: str, readable: bool) -> Path:
    """Take a file of the stage's artifact away, or cut its manifest short; return its folder."""
    (folder,) = outputs.glob(f"artifacts/{stage}/*{KEYS[stage]}")
    if readable:
        (folder / "data.txt").unlink()
    else:
        (folder / "manifest.json").write_text('{"stage"')
    return folder


@pytest.mark.parametrize("stage", ["label", "steer", "evaluate"])
def test_gc_leaves_what_a_damaged_artifact_was_made_from(outputs: Path, stage: str) -> None:
    damage(outputs, stage, readable=True)
    assert call(outputs, "gc", "--yes", "--older-than", "0") == 0
    assert kept_keys(outputs) == {key for name, key in KEYS.items() if name != stage}


@pytest.mark.parametrize("stage", ["label", "steer", "evaluate"])
def test_gc_removes_no_whole_artifact_if_a_damaged_one_hides_what_it_needs(
    outputs: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, partial = damage(outputs, stage, readable=False), make_half(outputs)
    grow_old(partial)
    assert call(outputs, "gc", "--yes", "--older-than", "0") == 1
    assert str(folder) in capsys.readouterr().err
    assert len(kept_keys(outputs)) == 6
    assert not partial.exists()


@pytest.mark.parametrize(("stage", "key"), [("generate", KEYS["generate"]), ("steer", "a2" * 8)])
def test_gc_goes_on_where_a_damaged_artifact_hides_nothing_that_is_needed(outputs: Path, stage: str, key: str) -> None:
    (folder,) = outputs.glob(f"artifacts/{stage}/*{key}")
    (folder / "manifest.json").write_text("")
    assert call(outputs, "gc", "--yes", "--older-than", "0") == 0
    assert kept_keys(outputs) == set(KEYS.values()) - {key}
