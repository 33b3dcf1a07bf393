"""Caches beside the artifacts: `icm gc` removes what belongs to nothing, and everything where it is told to."""

import hashlib
from pathlib import Path

import pytest

from icm_pipeline.store import caches
from icm_pipeline.store.building import building, building_share
from icm_pipeline.store.caches import images_key, judged_folder, prefix_folder
from icm_pipeline.store.shards import Share
from tests.helpers.shelf import call, description, grow_old, kept_keys, make, make_chain


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return make_chain(tmp_path)


def keep_in_caches(outputs: Path) -> dict[str, Path]:
    """Fill both caches: for images and originals that are there, for some that no result was made from, and others."""
    originals, judged = outputs / "artifacts" / "originals", outputs / "artifacts" / "evaluate" / ".judged"
    make(outputs, "originals", "c1" * 8, {})
    make(outputs, "evaluate", "c2" * 8, {"originals": "c1" * 8})
    make(outputs, "originals", "c3" * 8, {})
    pictures = images_key(3 * [hashlib.sha256(b"x" * 1000).hexdigest()])
    entries = {
        "first steps of originals": prefix_folder(originals, "c1" * 8, 5, "cpu") / "000000.safetensors",
        "first steps of what nobody needs": prefix_folder(originals, "c3" * 8, 5, "cpu") / "000000.safetensors",
        "first steps of what is gone": prefix_folder(originals, "d0" * 8, 5, "cpu") / "000000.safetensors",
        "seen images": judged / pictures / "a.safetensors",
        "seen images that are gone": judged / images_key(["other"]) / "a.safetensors",
        "of an earlier version": judged / "a.safetensors",
    }
    for path in entries.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"kept" * 500)
    return entries


def test_first_steps_of_other_libraries_or_devices_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = prefix_folder(tmp_path, "c1" * 8, 5, "cuda:0")
    assert prefix_folder(tmp_path, "c1" * 8, 5, "cuda:1") == here
    others = {prefix_folder(tmp_path, "c1" * 8, 5, "cpu"), prefix_folder(tmp_path, "c1" * 8, 6, "cuda:0")}
    monkeypatch.setattr(caches, "library_versions", lambda: {"torch": "0.1"})
    others.add(prefix_folder(tmp_path, "c1" * 8, 5, "cuda:0"))
    assert len({here, *others}) == 4


def test_answers_about_images_lie_beside_the_evaluations_whichever_stage_asks(outputs: Path) -> None:
    asking = [outputs / "artifacts" / stage / "sd1-5-gender-0123.partial" for stage in ("assign", "evaluate")]
    assert {judged_folder(folder) for folder in asking} == {outputs / "artifacts" / "evaluate" / ".judged"}


def test_gc_removes_from_the_caches_what_belongs_to_no_artifact(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = keep_in_caches(outputs)
    assert call(outputs, "gc", "--yes", "--older-than", "0") == 0
    assert [name for name, path in entries.items() if path.exists()] == ["first steps of originals", "seen images"]
    assert "4.0 kB  in caches (--caches" in capsys.readouterr().out
    assert call(outputs, "verify") == 0


def test_gc_leaves_what_is_young_or_used_in_the_caches(outputs: Path) -> None:
    entries = keep_in_caches(outputs)
    assert call(outputs, "gc", "--yes") == 0
    assert all(path.exists() for path in entries.values())
    originals = outputs / "artifacts" / "originals" / f"sd1-5-skin_tone-{'d0' * 8}"
    with building(originals, description("originals", "d0" * 8, {})) as partial:
        assert partial is not None
        assert call(outputs, "gc", "--yes", "--older-than", "0") == 0
        assert entries["first steps of what is gone"].exists()
        assert not entries["seen images that are gone"].exists()
        (partial / "data.txt").write_text("done")


def test_gc_leaves_the_first_steps_of_originals_that_are_half_made(outputs: Path) -> None:
    entry = keep_in_caches(outputs)["first steps of what is gone"]
    originals = outputs / "artifacts" / "originals" / f"sd1-5-skin_tone-{'d0' * 8}"
    with building_share(originals, description("originals", "d0" * 8, {}), Share(0, 2), wait=True) as partial:
        assert partial is not None
    grow_old(entry.parent)
    assert call(outputs, "gc", "--yes") == 0
    assert entry.exists()
    grow_old(partial)
    assert call(outputs, "gc", "--yes") == 0
    assert not entry.exists()


def test_gc_empties_all_caches_if_it_is_told_to_and_asks_first(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = keep_in_caches(outputs)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert call(outputs, "gc", "--caches") == 0
    assert all(path.exists() for path in entries.values())
    assert call(outputs, "gc", "--caches", "--dry-run") == 0
    assert all(path.exists() for path in entries.values())
    assert call(outputs, "gc", "--caches", "--yes") == 0
    assert not any(path.exists() for path in entries.values())
    assert len(kept_keys(outputs)) == 10
