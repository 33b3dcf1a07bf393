"""Artifacts: whole or not there, described, built once, and damaged ones named."""

import json
import logging
import multiprocessing
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from icm_pipeline.store import artifacts, files, fingerprints
from icm_pipeline.store import partial as partials
from icm_pipeline.store.artifacts import Artifact, ArtifactError, open_artifact, verify
from icm_pipeline.store.building import building
from icm_pipeline.store.files import hash_file
from icm_pipeline.store.fingerprints import fingerprint, make_key
from icm_pipeline.store.manifest import Manifest


def description(key: str = "k1") -> Manifest:
    return Manifest("generate", key, settings={"config": {"seed": 0}})


def build(folder: Path, key: str = "k1", text: str = "hello", force: bool = False) -> Artifact:
    with building(folder, description(key), force) as partial:
        if partial is not None:
            (partial / "sub").mkdir(exist_ok=True)
            (partial / "data.txt").write_text(text)
            (partial / "sub" / "more.txt").write_text("more")
    artifact = open_artifact(folder)
    assert artifact is not None
    return artifact


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with files.written_whole(path) as partial:
        partial.write_text("first")
        assert not path.exists()
    with pytest.raises(KeyError), files.written_whole(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_two_threads_that_write_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path, both = tmp_path / "a.txt", threading.Barrier(2)
    failures: list[BaseException] = []

    def write(text: str) -> None:
        try:
            with files.written_whole(path) as partial:
                partial.write_text(text)
                both.wait(60)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert path.read_text() in ("first", "second")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_being_written_is_told_from_leftovers_by_its_ending_alone(tmp_path: Path) -> None:
    with files.written_whole(tmp_path / "a.txt") as first, files.written_whole(tmp_path / "a.txt") as second:
        assert first != second
        assert first.suffix == second.suffix == ".tmp"


def test_an_artifact_appears_only_when_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with building(folder, description()) as partial:
        assert partial is not None
        (partial / "data.txt").write_text("hello")
        assert not folder.exists()
        assert open_artifact(folder) is None
    assert (folder / "data.txt").read_text() == "hello"
    assert not partial.exists()


def test_the_manifest_lists_every_file_with_its_description(tmp_path: Path) -> None:
    artifact = build(tmp_path / "a")
    assert set(artifact.manifest.files) == {"data.txt", "sub/more.txt"}
    assert artifact.manifest.files["data.txt"].size == 5
    assert artifact.key == "k1"
    assert artifact.manifest.config == {"seed": 0}
    assert artifact.manifest.libraries["torch"]


def test_a_folder_that_is_not_there_is_no_artifact(tmp_path: Path) -> None:
    assert open_artifact(tmp_path / "nothing") is None


def test_an_exception_leaves_the_partial_folder_and_no_artifact(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with pytest.raises(KeyError), building(folder, description()) as partial:
        assert partial is not None
        (partial / "data.txt").write_text("half")
        raise KeyError("stop")
    assert not folder.exists()
    assert (tmp_path / "a.partial" / "data.txt").read_text() == "half"


def test_a_partial_folder_of_the_same_key_is_kept_for_the_next_run(tmp_path: Path) -> None:
    with pytest.raises(KeyError), building(tmp_path / "a", description()) as partial:
        assert partial is not None
        (partial / "shard.txt").write_text("done")
        raise KeyError("stop")
    with building(tmp_path / "a", description()) as partial:
        assert partial is not None
        assert (partial / "shard.txt").read_text() == "done"


def test_a_partial_folder_of_another_key_is_thrown_away(tmp_path: Path) -> None:
    with pytest.raises(KeyError), building(tmp_path / "a", description("k1")) as partial:
        assert partial is not None
        (partial / "shard.txt").write_text("done")
        raise KeyError("stop")
    with building(tmp_path / "a", description("k2")) as partial:
        assert partial is not None
        assert not (partial / "shard.txt").exists()


def test_a_partial_folder_of_other_library_versions_is_thrown_away_and_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(partials, "library_versions", lambda: {"torch": "0.1", "numpy": "2"})
    with pytest.raises(KeyError), building(tmp_path / "a", description()) as partial:
        assert partial is not None
        (partial / "shard.txt").write_text("done")
        raise KeyError("stop")
    monkeypatch.setattr(partials, "library_versions", lambda: {"torch": "0.2", "numpy": "2"})
    with caplog.at_level(logging.WARNING), building(tmp_path / "a", description()) as partial:
        assert partial is not None
        assert not (partial / "shard.txt").exists()
    assert "beginning a.partial again: torch 0.1 there and 0.2 here" in caplog.text
    assert "numpy" not in caplog.text


def test_temporary_files_of_a_killed_job_do_not_reach_the_artifact(tmp_path: Path) -> None:
    with pytest.raises(KeyError), building(tmp_path / "a", description()) as partial:
        assert partial is not None
        (partial / "x.png.123.tmp").write_text("half")
        (partial / ".tmpjkfaC7").touch()  # as safetensors writes
        raise KeyError("stop")
    assert set(build(tmp_path / "a").manifest.files) == {"data.txt", "sub/more.txt"}


def test_what_is_done_survives_a_failure_while_publishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(partials, "hash_file", full)
        with pytest.raises(ArtifactError, match="is kept"), building(tmp_path / "a", description()) as partial:
            assert partial is not None
            (partial / "shard.txt").write_text("done")
    with building(tmp_path / "a", description()) as partial:
        assert partial is not None
        assert (partial / "shard.txt").exists()


def test_a_finished_artifact_is_not_built_again(tmp_path: Path) -> None:
    build(tmp_path / "a")
    with building(tmp_path / "a", description()) as partial:
        assert partial is None


def test_force_builds_a_finished_artifact_again(tmp_path: Path) -> None:
    build(tmp_path / "a", text="old")
    artifact = build(tmp_path / "a", text="new", force=True)
    assert artifact.path("data.txt").read_text() == "new"
    assert verify(artifact) is artifact
    assert not list(tmp_path.glob("a.*"))


def test_force_rebuilds_a_damaged_artifact(tmp_path: Path) -> None:
    artifact = build(tmp_path / "a", text="old")
    (artifact.folder / "data.txt").unlink()
    assert build(tmp_path / "a", text="new", force=True).path("data.txt").read_text() == "new"


def test_a_job_that_did_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="refused"), building(tmp_path / "a", description()):
        raise ValueError("refused")
    assert not list(tmp_path.glob("a*"))


@pytest.mark.parametrize("step", ["code_version", "replace_folder", "shutil.rmtree"])
def test_a_job_killed_while_it_publishes_is_gone_on_with_and_leaves_nothing_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"icm_pipeline.store.partial.{step}", killed)
        with pytest.raises(KeyboardInterrupt), building(tmp_path / "a", description()) as partial:
            assert partial is not None
            (partial / "data.txt").write_text("hello")
            (partial / "shards" / "0.json").write_text("{}")
    assert open_artifact(tmp_path / "a") is None
    with building(tmp_path / "a", description()) as partial:
        assert (partial is None) == (step != "code_version")  # once the manifest is written only the rename is missing
    artifact = open_artifact(tmp_path / "a")
    assert artifact is not None
    assert list(verify(artifact).manifest.files) == ["data.txt"]
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"data.txt", "manifest.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("cut", ["files", "key", "stage"])
def test_a_manifest_that_lacks_what_it_must_say_is_refused(tmp_path: Path, cut: str) -> None:
    manifest = build(tmp_path / "a").folder / "manifest.json"
    content = json.loads(manifest.read_text())
    content[cut] = type(content[cut])()
    manifest.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="is damaged"):
        open_artifact(tmp_path / "a")


def test_an_error_that_is_not_about_the_disk_keeps_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="weights"), building(tmp_path / "a", description()):
        raise FileNotFoundError("no weights")


def test_a_failing_forced_build_leaves_the_old_artifact_alone(tmp_path: Path) -> None:
    build(tmp_path / "a", text="old")
    with pytest.raises(KeyError), building(tmp_path / "a", description(), force=True) as partial:
        assert partial is not None
        (partial / "data.txt").write_text("new")
        raise KeyError("stop")
    artifact = open_artifact(tmp_path / "a")
    assert artifact is not None
    assert artifact.path("data.txt").read_text() == "old"


def test_force_is_not_stopped_by_what_an_earlier_forced_build_left_behind(tmp_path: Path) -> None:
    build(tmp_path / "a", text="old")
    (tmp_path / "a.old").mkdir()
    (tmp_path / "a.old" / "data.txt").write_text("older")
    assert build(tmp_path / "a", text="new", force=True).path("data.txt").read_text() == "new"


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    artifact = build(tmp_path / "a")
    (artifact.folder / "data.txt").write_text("hel")
    with pytest.raises(ArtifactError, match=r"data\.txt has 3 bytes instead of 5"):
        open_artifact(artifact.folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    artifact = build(tmp_path / "a")
    (artifact.folder / "sub" / "more.txt").unlink()
    with pytest.raises(ArtifactError, match=r"sub/more\.txt is missing"):
        open_artifact(artifact.folder)


def test_an_edited_file_of_the_same_size_is_named(tmp_path: Path) -> None:
    artifact = build(tmp_path / "a")
    (artifact.folder / "data.txt").write_text("jello")
    with pytest.raises(ArtifactError, match=r"data\.txt was changed"):
        verify(artifact)


def test_an_untouched_artifact_verifies(tmp_path: Path) -> None:
    artifact = build(tmp_path / "a")
    assert verify(artifact) is artifact


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"key": "k1"}'])
def test_a_missing_or_broken_manifest_is_named(tmp_path: Path, content: str | None) -> None:
    artifact = build(tmp_path / "a")
    manifest = artifact.folder / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_text(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read") as caught:
        open_artifact(artifact.folder)
    assert str(artifact.folder) in str(caught.value)


def test_a_damaged_artifact_is_not_taken_for_finished(tmp_path: Path) -> None:
    artifact = build(tmp_path / "a")
    (artifact.folder / "data.txt").unlink()
    with pytest.raises(ArtifactError, match="damaged"), building(artifact.folder, description()):
        pytest.fail("the body of a damaged key must not run")


def test_a_file_the_manifest_does_not_list_cannot_be_asked_for(tmp_path: Path) -> None:
    artifact = build(tmp_path / "a")
    (artifact.folder / "stray.txt").write_text("x")
    with pytest.raises(ArtifactError, match=r"stray\.txt"):
        artifact.path("stray.txt")


def test_a_parent_that_cannot_be_written_is_an_artifact_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(ArtifactError, match=r"paths\.outputs"),
        building(tmp_path / "file" / "artifacts" / "a", description()),
    ):
        pytest.fail("there is nowhere to build")


def test_a_disk_error_while_building_says_where_the_work_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"a\.partial"), building(tmp_path / "a", description()):
        raise OSError(28, "No space left on device")


def _build_slowly(folder: Path, log: Path) -> None:
    with building(folder, description()) as partial:
        if partial is not None:
            with log.open("a") as file:
                file.write(f"{os.getpid()}\n")
            (partial / "data.txt").write_text("hello")
            time.sleep(0.5)


def test_two_processes_that_want_the_same_key_run_the_body_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    workers = [context.Process(target=_build_slowly, args=(tmp_path / "a", log)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(log.read_text().splitlines()) == 1
    assert open_artifact(tmp_path / "a") is not None


def test_two_processes_that_want_different_keys_both_run(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    workers = [context.Process(target=_build_slowly, args=(tmp_path / name, log)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(log.read_text().splitlines()) == 2


def test_a_key_depends_on_content_and_not_on_order() -> None:
    assert make_key({"a": 1, "b": [2, "é"]}) == make_key({"a": 1, "b": [2, "é"]})
    assert make_key({"a": 1, "b": 2}) != make_key({"b": 2, "a": 1})
    assert make_key({"a": 1}) != make_key({"a": 2})
    assert make_key([1, 2]) != make_key([2, 1])


def test_nan_cannot_enter_a_key() -> None:
    with pytest.raises(ValueError, match="JSON"):
        make_key({"alpha": float("nan")})


def test_json_is_never_half_written(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def weights_folder(folder: Path) -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "weights.bin").write_bytes(b"0123")
    return folder


def test_equal_folders_have_equal_fingerprints_wherever_they_lie(tmp_path: Path) -> None:
    first, second = weights_folder(tmp_path / "a"), weights_folder(tmp_path / "b")
    os.utime(second / "unet" / "weights.bin", (1, 1))
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.parametrize("change", ["content", "name", "added", "removed"])
def test_a_fingerprint_changes_with_content(tmp_path: Path, change: str) -> None:
    folder = weights_folder(tmp_path / "a")
    before, weights = fingerprint(folder), folder / "unet" / "weights.bin"
    if change == "content":
        weights.write_bytes(b"0124")
    elif change == "name":
        weights.rename(folder / "unet" / "other.bin")
    elif change == "added":
        (folder / "vae.bin").write_bytes(b"")
    else:
        weights.unlink()
    assert fingerprint(folder) != before


def test_a_model_card_changes_no_fingerprint(tmp_path: Path) -> None:
    folder = weights_folder(tmp_path / "a")
    before = fingerprint(folder)
    (folder / "README.md").write_text("a card")
    (folder / "quality.json").write_text("{}")
    assert fingerprint(folder) == before


def test_the_fingerprint_of_a_single_file_changes_with_its_content(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"0123")
    before = fingerprint(path)
    assert fingerprint(path) == before
    path.write_bytes(b"0124")
    assert fingerprint(path) != before


@pytest.fixture
def hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make every file a large one, with a cache in the test's folder; return the names of the files that are hashed."""
    names: list[str] = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return hash_file(path)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprints, "LARGE_FILE", 0)
    monkeypatch.setattr(fingerprints, "hash_file", noted)
    return names


def test_a_large_file_is_hashed_once_and_again_when_it_changed(tmp_path: Path, hashed: list[str]) -> None:
    folder = weights_folder(tmp_path / "a")
    before = fingerprint(folder)
    assert len(hashed) == 2
    assert fingerprint(folder) == before
    assert len(hashed) == 2
    (folder / "unet" / "weights.bin").write_bytes(b"0124")
    os.utime(folder / "unet" / "weights.bin", (1, 1))
    assert fingerprint(folder) != before
    assert hashed[2:] == ["weights.bin"]


def test_a_copy_of_a_large_file_has_its_fingerprint_whenever_it_was_made(tmp_path: Path, hashed: list[str]) -> None:
    first, second = weights_folder(tmp_path / "a"), weights_folder(tmp_path / "b")
    os.utime(second / "unet" / "weights.bin", (1, 1))
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.parametrize("cache", ["[]", "{", '{"x": 1}', None])
def test_a_broken_or_missing_cache_costs_only_time(tmp_path: Path, hashed: list[str], cache: str | None) -> None:
    folder = weights_folder(tmp_path / "a")
    before = fingerprint(folder)
    if cache is None:
        shutil.rmtree(tmp_path / "cache")
        (tmp_path / "cache").write_text("in the way")
    else:
        (tmp_path / "cache" / "icm_pipeline" / "weights.json").write_text(cache)
    assert fingerprint(folder) == before
    assert len(hashed) == 4


def test_a_folder_with_thousands_of_files_is_no_folder_of_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = weights_folder(tmp_path / "a")
    monkeypatch.setattr(fingerprints, "MOST_WEIGHT_FILES", 1)
    with pytest.raises(ValueError, match="no folder of weights"):
        fingerprint(folder)


def test_hashing_that_takes_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprints, "LARGE_FILE", 1)
    artifact, weights = build(tmp_path / "a"), tmp_path / "weights"
    weights.write_text("weights")
    with caplog.at_level("INFO"):
        verify(artifact)
        fingerprint(weights)
        assert "hashing" not in caplog.text
        monkeypatch.setattr(artifacts, "LONG_TO_HASH", 1)
        verify(artifact)
        fingerprint(weights)  # remembered
        assert len([record for record in caplog.records if "hashing" in record.msg]) == 1
        weights.write_text("others")
        fingerprint(weights)
    assert [record.args[1] for record in caplog.records if "hashing" in record.msg] == [artifact.folder, weights]
