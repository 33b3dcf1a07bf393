"""`icm show`, `ls`, `gc`, `verify`: a result is traced to all that made it; what nothing needs goes, and only that."""

import subprocess
import sys
from pathlib import Path

import pytest

from icm_pipeline.machine.devices import device_name
from icm_pipeline.pipeline.table import kinds_of_stages
from icm_pipeline.store.artifacts import open_artifact
from icm_pipeline.store.building import building, building_share, is_being_built, missing_shares
from icm_pipeline.store.garbage import find_waste
from icm_pipeline.store.shards import Share
from icm_pipeline.store.shelf import read_shelf
from icm_pipeline.store.versions import code_version
from icm_pipeline.text import size_text
from tests.helpers.shelf import KEYS, call, description, grow_old, half_made, kept_keys, make, make_chain, make_half


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return make_chain(tmp_path)


def test_show_traces_a_result_to_all_that_made_it(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(outputs, "show", KEYS["evaluate"][:5]) == 0
    text = capsys.readouterr().out
    code, artifact = code_version(), open_artifact(outputs / f"artifacts/evaluate/sd1-5-skin_tone-{KEYS['evaluate']}")
    assert artifact is not None
    for expected in (
        *KEYS.values(), "sd1-5, skin_tone", "woman: [a] woman; man: a man", "model.path " + "cafe" * 4, code["version"],
        f"torch {artifact.manifest.libraries['torch']}", device_name("cpu"), artifact.manifest.created,
        "images/", "3 files", "3.0 kB", "data.txt",
    ):  # fmt: skip
        assert expected in text, expected
    if "commit" in code:
        assert code["commit"] in text


@pytest.mark.parametrize("how", ["folder", "folder's name", "its beginning", "whole key"])
def test_show_finds_an_artifact_by(outputs: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = outputs / "artifacts" / "probe" / f"sd1-5-skin_tone-{KEYS['probe']}"
    word = {
        "folder": str(folder),
        "folder's name": folder.name,
        "its beginning": folder.name[:-5],
        "whole key": KEYS["probe"],
    }[how]
    assert call(outputs, "show", word, "--files") == 0
    assert "images/2.png" in capsys.readouterr().out


@pytest.mark.parametrize(("word", "expected"), [("a", "several"), ("ffff", "icm ls")])
def test_show_refuses_what_it_cannot_tell_apart_or_find(
    outputs: Path, word: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(outputs, "show", word) == 1
    assert expected in capsys.readouterr().err


def test_show_says_which_parent_is_gone(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = outputs.glob(f"artifacts/steer/*{KEYS['steer']}")
    folder.rename(outputs / "elsewhere")
    assert call(outputs, "show", KEYS["evaluate"]) == 0
    assert f"steer {KEYS['steer']} (no longer there)" in capsys.readouterr().out


def test_ls_lists_every_artifact_and_marks_what_a_result_was_made_from(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(outputs, "ls") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {word: line for line in lines for word in line.split() if len(word) == 16 and word.isalnum()}
    assert set(rows) == {*KEYS.values(), "a1" * 8, "a2" * 8}
    assert all("sd1-5" in row and "skin_tone" in row and "kB" in row for row in rows.values())
    assert {key for key, row in rows.items() if row.split()[0] == "*"} == set(KEYS.values())


def test_ls_names_a_damaged_artifact(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = outputs.glob(f"artifacts/label/*{KEYS['label']}")
    (folder / "data.txt").unlink()
    assert call(outputs, "ls", "--stage", "label") == 0
    text = capsys.readouterr().out
    assert "data.txt is missing" in text
    assert KEYS["probe"] not in text


def test_ls_names_half_made_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    partial = tmp_path / "artifacts" / "label" / "sd1-5-gender-0000.partial"
    partial.mkdir(parents=True)
    assert call(tmp_path, "ls") == 0
    assert f"half-made: {partial}\n" in capsys.readouterr().out
    assert call(tmp_path, "ls", "--stage", "probe") == 0
    assert "half-made" not in capsys.readouterr().out


def test_gc_removes_what_no_result_was_made_from_and_nothing_else(outputs: Path) -> None:
    assert call(outputs, "gc", "--yes", "--older-than", "0") == 0
    assert kept_keys(outputs) == set(KEYS.values())
    assert call(outputs, "verify") == 0
    assert {path.name for path in outputs.glob("artifacts/*/*")} == {f"sd1-5-skin_tone-{key}" for key in KEYS.values()}


def test_gc_leaves_what_was_made_today_unless_it_is_told_otherwise(outputs: Path) -> None:
    assert call(outputs, "gc", "--yes") == 0
    assert len(kept_keys(outputs)) == 7


def test_gc_tries_nothing_in_a_dry_run(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(outputs, "gc", "--dry-run", "--older-than", "0") == 0
    assert "2 folders" in capsys.readouterr().out
    assert len(kept_keys(outputs)) == 7


@pytest.mark.parametrize(("answer", "left"), [("y", 5), ("n", 7), ("", 7)])
def test_gc_asks_first(outputs: Path, answer: str, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert call(outputs, "gc", "--older-than", "0") == 0
    assert len(kept_keys(outputs)) == left


def test_gc_removes_the_partial_folder_of_a_job_that_died_long_ago(outputs: Path) -> None:
    grow_old(make_half(outputs))
    assert call(outputs, "gc", "--yes") == 0
    assert list(half_made(outputs).parent.iterdir()) == []


def test_gc_leaves_half_made_work_of_today_and_what_it_needs_to_be_finished(outputs: Path) -> None:
    grow_old(outputs)
    partial = make_half(outputs)
    grow_old(partial / ".building.json")
    assert call(outputs, "gc", "--yes", "--older-than", "24") == 0
    assert missing_shares(half_made(outputs), 2) == [1]
    assert len(kept_keys(outputs)) == 7
    grow_old(partial)
    assert call(outputs, "gc", "--yes", "--older-than", "24") == 0
    assert missing_shares(half_made(outputs), 2) == [0, 1]
    assert kept_keys(outputs) == set(KEYS.values())


def test_gc_removes_at_once_what_was_replaced(outputs: Path) -> None:
    make_half(outputs)
    old = half_made(outputs).with_name(half_made(outputs).name + ".old")
    old.mkdir()
    (old / "data.txt").write_text("replaced")
    assert call(outputs, "gc", "--yes") == 0
    assert [path.name for path in old.parent.iterdir()] == ["sd1-5-skin_tone-b1.partial"]


def test_gc_leaves_half_made_work_that_a_job_went_on_with_before_the_answer(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grow_old(make_half(outputs))

    def answer(question: str) -> str:
        with building_share(half_made(outputs), description("extract", "b1", {}), Share(1, 2), wait=True) as partial:
            assert partial is not None
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    assert call(outputs, "gc") == 0
    assert "Removed 0 folders" in capsys.readouterr().out
    assert missing_shares(half_made(outputs), 2) == []


def test_gc_goes_on_where_a_listed_folder_was_published_before_the_answer(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow_old(make_half(outputs))

    def answer(question: str) -> str:
        with building(half_made(outputs), description("extract", "b1", {})) as partial:
            assert partial is not None
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    assert call(outputs, "gc") == 0
    assert "b1" in kept_keys(outputs)


@pytest.mark.parametrize("whole", [False, True])
def test_gc_lets_no_job_begin_while_it_takes_a_folder_away(
    outputs: Path, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if whole:
        folder = make(outputs, "extract", "b1", {})
        grow_old(folder)
    else:
        folder = half_made(outputs)
        grow_old(make_half(outputs))
    rename, kept_out = Path.rename, list[bool]()

    def watched(path: Path, target: Path) -> Path:
        if path.parent == folder.parent and path.suffix != ".lock":
            kept_out.append(is_being_built(folder))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    assert call(outputs, "gc", "--yes") == 0
    assert kept_out == [True]
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("shared", [False, True])
def test_gc_leaves_a_living_job_its_partial_folder_and_its_parents(outputs: Path, shared: bool) -> None:
    needs = description("extract", "b1", {"steer": "a2" * 8})
    folder = half_made(outputs)
    job = building_share(folder, needs, Share(0, 2), wait=True) if shared else building(folder, needs)
    with job as partial:
        assert partial is not None
        assert call(outputs, "gc", "--yes", "--older-than", "0") == 0
        assert len(kept_keys(outputs)) == 7
        (partial / "data.txt").write_text("done")
    assert find_waste(read_shelf(outputs, kinds_of_stages()), hours=0) != []


def test_verify_names_every_changed_file_and_exits_with_one(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (changed,) = outputs.glob(f"artifacts/generate/*{KEYS['generate']}")
    (changed / "images" / "1.png").write_bytes(b"y" + b"x" * 999)
    (cut,) = outputs.glob(f"artifacts/steer/*{KEYS['steer']}")
    (cut / "data.txt").write_text("")
    assert call(outputs, "verify") == 1
    text = capsys.readouterr().out
    assert "images/1.png was changed" in text
    assert "data.txt has 0 bytes" in text
    (cut / "manifest.json").write_text("{")
    assert call(outputs, "verify") == 1
    assert f"{len(KEYS) + 2} artifacts, " in capsys.readouterr().out  # one that cannot be read counts
    assert call(outputs, "verify", KEYS["probe"]) == 0
    assert call(outputs, "verify", KEYS["generate"]) == 1


def test_a_folder_without_artifacts_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path, "ls") == 1
    assert "--outputs" in capsys.readouterr().err


def test_the_commands_run_without_hydra_and_torch(outputs: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['icm', 'ls', '--outputs', sys.argv[1]]\n"
        "try: runpy.run_module('icm_pipeline', run_name='__main__')\n"
        "finally: assert not {'torch', 'hydra', 'diffusers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(outputs)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert KEYS["evaluate"] in done.stdout


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999.4, "999 bytes"), (1500, "1.5 kB"), (123_456, "123.5 kB"), (7e9, "7.0 GB"), (5e15, "5.0 PB")],
)
def test_sizes_are_short(size: float, text: str) -> None:
    assert size_text(size) == text


def test_the_processor_has_a_name() -> None:
    assert len(device_name("cpu")) > 2
