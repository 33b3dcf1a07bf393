"""Nothing lost: killed at any moment, started many times at once, on a disk that fills up, the result is the same."""

import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch
from icm_pipeline.generation.jobs import Job
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.store.artifacts import ArtifactError
from icm_pipeline.store.building import building, building_share, tidy
from icm_pipeline.store.manifest import Manifest
from icm_pipeline.store.partial import partial_of
from icm_pipeline.store.shards import Share
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.command_line import artifact_hashes, listed_files
from tests.helpers.image_sets import make_both, make_set
from tests.helpers.settings import TINY

FORK = multiprocessing.get_context("fork")
Make = Callable[..., None]


@pytest.fixture(scope="module")
def make(settings_with: Callable[..., Settings]) -> Make:
    """Give a function that runs a stage in this process."""

    def made(outputs: Path, stage: str, *words: str) -> None:
        Pipeline(settings_with(*TINY, f"paths.outputs={outputs}", *words), [], NoTracker()).run(stage)

    return made


def count_files(outputs: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(outputs))


@pytest.fixture(scope="module")
def unbroken(tiny_run: Path) -> tuple[dict[str, str], int]:
    """Hashes of all files of a run that nothing stopped, and the number of files it left."""
    return artifact_hashes(tiny_run), count_files(tiny_run)


def _quietly(make: Make, outputs: Path, stage: str, words: tuple[str, ...]) -> None:
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    logging.disable()
    make(outputs, stage, *words)
    os._exit(0)


def start(make: Make, outputs: Path, stage: str, *words: str) -> multiprocessing.process.BaseProcess:
    process = FORK.Process(target=_quietly, args=(make, outputs, stage, words))
    process.start()
    return process


CACHES = (".judged", ".prefixes")


def leftovers(outputs: Path) -> list[Path]:
    """Return everything beside whole artifacts and caches, and everything in artifacts that no manifest lists."""
    files = [path for path in outputs.glob("artifacts/**/*") if path.is_file() and not {*CACHES} & {*path.parts}]
    listed = {f"{outputs}/{name}" for name in listed_files(outputs)}
    beside = [path for path in files if str(path) not in listed and path.name != "manifest.json"]
    folders = [path for path in outputs.glob("artifacts/*/*") if path.name not in CACHES]
    return beside + [path for path in folders if not (path / "manifest.json").exists()]


@pytest.mark.parametrize("num_kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_a_pipeline_killed_at_random_moments_ends_with_the_bytes_of_an_unbroken_one(
    make: Make, unbroken: tuple[dict[str, str], int], tmp_path: Path, num_kills: int
) -> None:
    expected, num_files = unbroken
    rng = random.Random(num_kills)
    kills, outputs, deadline = 0, tmp_path / "0", time.monotonic() + 600 + 60 * num_kills
    while kills < num_kills:
        assert time.monotonic() < deadline, f"{kills} kills of {num_kills}"
        there = count_files(outputs)
        wanted, late = there + rng.uniform(0, 1.2) * (num_files - there), rng.uniform(0, 0.05)
        process = start(make, outputs, "all")
        while process.exitcode is None and count_files(outputs) < wanted:
            time.sleep(0.02)
        process.join(late)
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            for name, digest in artifact_hashes(outputs).items():
                assert expected[name] == digest
        else:
            assert process.exitcode == 0
            assert artifact_hashes(outputs) == expected
            assert leftovers(outputs) == []
            outputs = tmp_path / str(kills)
    make(outputs, "all")
    assert artifact_hashes(outputs) == expected
    assert leftovers(outputs) == []


DESCRIPTION = Manifest("originals", "k")


def _build_a_set(outputs: Path, shares: int) -> None:
    """Build the artifact of an image set, in shares first if there are several."""

    def slowly(jobs: list[Job]) -> Batch:
        time.sleep(0.002)
        return make_both(jobs)

    folder = outputs / "artifacts" / "originals" / "set-k"
    for share in [Share(index, shares) for index in range(shares)] if shares > 1 else []:
        with building_share(folder, DESCRIPTION, share, wait=True) as partial:
            if partial is not None:
                make_set(partial, slowly, share=share)
    with building(folder, DESCRIPTION) as partial:
        if partial is not None:
            make_set(partial, slowly)
    tidy(folder)


def test_an_artifact_killed_at_fifty_random_moments_while_it_is_made_and_published_is_whole(tmp_path: Path) -> None:
    started = time.monotonic()
    _build_a_set(tmp_path / "unbroken", 3)
    seconds, expected = time.monotonic() - started, artifact_hashes(tmp_path / "unbroken")
    rng, kills, finished, deadline = random.Random(0), 0, 0, time.monotonic() + 300
    while kills < 50 or not finished:
        assert time.monotonic() < deadline, f"{kills} kills, {finished} finished"
        outputs = tmp_path / str(finished)
        process = FORK.Process(target=_build_a_set, args=(outputs, rng.choice([1, 3])))
        process.start()
        process.join(rng.uniform(0, seconds))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            assert artifact_hashes(outputs) in ({}, expected)
        else:
            assert process.exitcode == 0
            assert artifact_hashes(outputs) == expected
            assert leftovers(outputs) == []
            finished += 1


@pytest.mark.parametrize("edited", [False, True])
def test_what_was_killed_before_its_last_rename_is_published_only_if_its_files_are_what_the_manifest_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: bool
) -> None:
    folder, made = tmp_path / "artifacts" / "originals" / "set-k", list[str]()

    def build() -> None:
        with building(folder, DESCRIPTION) as partial:
            if partial is not None:
                made.append("once")
                (partial / "out.txt").write_text("whole")

    def killed(partial: Path, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("icm_pipeline.store.partial.move", killed)
        build()
    partial = partial_of(folder)
    assert (partial / "manifest.json").exists()
    assert not folder.exists()
    if edited:
        (partial / "out.txt").write_text("elohw")  # as many bytes
    build()
    assert (folder / "out.txt").read_text() == "whole"
    assert len(made) == 1 + edited
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("num_jobs", "words"), [(2, ("shards=2",)), pytest.param(8, (), marks=pytest.mark.slow)])
def test_processes_started_at_once_on_the_same_work_give_one_result(
    make: Make, unbroken: tuple[dict[str, str], int], tmp_path: Path, num_jobs: int, words: tuple[str, ...]
) -> None:
    processes = [start(make, tmp_path, "originals", *words) for _ in range(num_jobs)]
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * num_jobs
    assert artifact_hashes(tmp_path) == only(unbroken[0], "originals")
    assert leftovers(tmp_path) == []


def only(hashes: dict[str, str], *stages: str) -> dict[str, str]:
    return {name: digest for name, digest in hashes.items() if name.split("/")[1] in stages}


@pytest.mark.slow
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_in_any_order_meet_in_the_artifact_of_one_job(
    make: Make, unbroken: tuple[dict[str, str], int], tmp_path: Path, order: tuple[int, ...]
) -> None:
    for stage in ("generate", "label"):
        for index in order:
            assert not list(tmp_path.glob(f"artifacts/{stage}/*/manifest.json"))
            make(tmp_path, stage, "shards=3", f"shard={index}")
    assert artifact_hashes(tmp_path) == only(unbroken[0], "generate", "label")
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_a_job_for_all_stages_does_the_shards_that_no_other_job_does(
    make: Make, unbroken: tuple[dict[str, str], int], tmp_path: Path
) -> None:
    make(tmp_path, "generate", "shards=4", "shard=2")
    make(tmp_path, "all", "shards=4", "shard=1")
    assert artifact_hashes(tmp_path) == unbroken[0]
    assert leftovers(tmp_path) == []


def test_a_run_begun_in_shards_is_finished_by_one_that_knows_of_none(
    make: Make, unbroken: tuple[dict[str, str], int], tmp_path: Path
) -> None:
    make(tmp_path, "originals", "shards=3", "shard=1")
    make(tmp_path, "originals", "generate.shard_size=6")
    assert artifact_hashes(tmp_path) == only(unbroken[0], "originals")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 40 kB, which can be mounted again with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_full_disk_stops_with_a_message_and_with_more_room_it_goes_on(
    make: Make, unbroken: tuple[dict[str, str], int], small_disk: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"No space left.*free some space"):
        make(small_disk, "originals")
    assert not list(small_disk.glob("artifacts/originals/*/manifest.json"))
    remount(small_disk, "size=10m")
    make(small_disk, "originals")
    assert artifact_hashes(small_disk) == only(unbroken[0], "originals")
    assert leftovers(small_disk) == []


def test_a_read_only_folder_is_refused_in_words_and_what_is_done_there_can_be_read(
    make: Make, small_disk: Path
) -> None:
    remount(small_disk, "size=10m")
    make(small_disk, "originals")
    remount(small_disk, "ro")
    make(small_disk, "originals")
    with pytest.raises(ArtifactError, match=r"Read-only.*paths\.outputs"):
        make(small_disk, "generate")
