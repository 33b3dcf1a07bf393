"""Artifacts made by several jobs: each its share, in any order, whoever dies, published once."""

import errno
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from icm_pipeline.store import locks
from icm_pipeline.store.artifacts import STAMP, ArtifactError, open_artifact, verify
from icm_pipeline.store.building import building, building_share, is_being_built, locked_or_skip, missing_shares, tidy
from icm_pipeline.store.manifest import Manifest
from icm_pipeline.store.partial import partial_of, seconds_before
from icm_pipeline.store.shards import Shard, Share

FORK = multiprocessing.get_context("fork")
COUNT = 4
DESCRIPTION = Manifest("generate", "k")


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    monkeypatch.setattr("icm_pipeline.store.locks.POLL_SECONDS", 0.01)


def make_share(folder: Path, index: int, wait: bool = True) -> bool:
    """Make one share and say whether there was something to do."""
    with building_share(folder, DESCRIPTION, Share(index, COUNT), wait) as partial:
        if partial is not None:
            (partial / f"{index}.txt").write_text(str(index))
    return partial is not None


def publish(folder: Path) -> bool:
    with building(folder, DESCRIPTION) as partial:
        if partial is not None:
            made = sorted(path.name for path in partial.glob("?.txt"))
            (partial / "all.txt").write_text(" ".join(made))
    return partial is not None


def names(folder: Path) -> list[str]:
    artifact = open_artifact(folder)
    assert artifact is not None
    return sorted(verify(artifact).manifest.files)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_shares_meet_in_one_artifact_whatever_their_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    folder = tmp_path / "a"
    for done, index in enumerate(order):
        assert len(missing_shares(folder, COUNT)) == COUNT - done
        assert make_share(folder, index)
        assert open_artifact(folder) is None
    assert missing_shares(folder, COUNT) == []
    assert publish(folder)
    assert names(folder) == ["0.txt", "1.txt", "2.txt", "3.txt", "all.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert len(json.loads((folder / "manifest.json").read_text())["shares"]) == COUNT


def test_a_share_that_is_made_is_not_made_again(tmp_path: Path) -> None:
    assert make_share(tmp_path / "a", 1)
    assert not make_share(tmp_path / "a", 1)
    assert missing_shares(tmp_path / "a", COUNT) == [0, 2, 3]


def test_a_share_that_another_job_finishes_just_before_its_lock_is_taken_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_share(tmp_path / "a", 0)
    take = locks.Lock.try_now

    def take_after_the_other(lock: locks.Lock) -> locks.Lock | None:
        if "share-1" in str(lock._name):
            (partial_of(tmp_path / "a") / "shards" / f"share-1-of-{COUNT}.json").touch()
        return take(lock)

    monkeypatch.setattr(locks.Lock, "try_now", take_after_the_other)
    assert not make_share(tmp_path / "a", 1)
    assert not is_being_built(tmp_path / "a")


def test_a_share_of_a_finished_artifact_is_nothing_to_do(tmp_path: Path) -> None:
    assert publish(tmp_path / "a")
    assert not make_share(tmp_path / "a", 0)
    assert missing_shares(tmp_path / "a", COUNT) == []


def test_a_share_that_failed_is_missing_and_the_others_stay(tmp_path: Path) -> None:
    make_share(tmp_path / "a", 0)
    with (
        pytest.raises(KeyError),
        building_share(tmp_path / "a", DESCRIPTION, Share(1, COUNT), wait=True) as partial,
    ):
        assert partial is not None
        raise KeyError("stop")
    assert missing_shares(tmp_path / "a", COUNT) == [1, 2, 3]


def test_a_refused_share_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="refused"),
        building_share(tmp_path / "a", DESCRIPTION, Share(0, COUNT), wait=True),
    ):
        raise ValueError("refused")
    assert list(tmp_path.iterdir()) == []


def test_who_does_not_wait_leaves_a_share_to_the_job_that_makes_it(tmp_path: Path) -> None:
    with building_share(tmp_path / "a", DESCRIPTION, Share(0, COUNT), wait=True) as partial:
        assert partial is not None
        assert not make_share(tmp_path / "a", 0, wait=False)
        assert make_share(tmp_path / "a", 1, wait=False)
        assert is_being_built(tmp_path / "a")
        (partial / "0.txt").write_text("0")
    assert not is_being_built(tmp_path / "a")
    assert missing_shares(tmp_path / "a", COUNT) == [2, 3]


def _share_slowly(folder: Path, index: int, ready: Path) -> None:
    with building_share(folder, DESCRIPTION, Share(index, COUNT), wait=True) as partial:
        assert partial is not None
        ready.touch()
        time.sleep(0.5)
        (partial / f"{index}.txt").write_text(str(index))


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_job_that_builds_alone_waits_for_the_shares_that_are_being_made(tmp_path: Path) -> None:
    worker = FORK.Process(target=_share_slowly, args=(tmp_path / "a", 0, tmp_path / "ready"))
    worker.start()
    _wait_for(tmp_path / "ready")
    assert publish(tmp_path / "a")
    worker.join(60)
    assert worker.exitcode == 0
    assert (tmp_path / "a" / "all.txt").read_text() == "0.txt"


def test_a_killed_jobs_share_is_made_by_the_next_who_comes(tmp_path: Path) -> None:
    worker = FORK.Process(target=_share_slowly, args=(tmp_path / "a", 0, tmp_path / "ready"))
    worker.start()
    _wait_for(tmp_path / "ready")
    worker.kill()
    worker.join(60)
    assert make_share(tmp_path / "a", 0)


def _help(folder: Path, first: int, log: Path) -> None:
    for index in [(first + offset) % COUNT for offset in range(COUNT)]:
        if make_share(folder, index):
            with log.open("a") as file:
                file.write(f"share {index}\n")
    if publish(folder):
        with log.open("a") as file:
            file.write("published\n")


@pytest.mark.parametrize("system_locks", [True, False])
@pytest.mark.parametrize("num_jobs", [2, 8])
def test_jobs_started_at_once_make_every_share_once_and_publish_once(
    tmp_path: Path, num_jobs: int, system_locks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_flock(*args: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if not system_locks:
        monkeypatch.setattr("fcntl.flock", no_flock)
    folder, log = tmp_path / "place" / "a", tmp_path / "log"
    workers = [FORK.Process(target=_help, args=(folder, number, log)) for number in range(num_jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * num_jobs
    assert sorted(log.read_text().splitlines()) == ["published", *(f"share {index}" for index in range(COUNT))]
    assert names(folder) == ["0.txt", "1.txt", "2.txt", "3.txt", "all.txt"]
    assert [path.name for path in folder.parent.iterdir()] == ["a"]


def have_versions(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    monkeypatch.setattr("icm_pipeline.store.partial.library_versions", lambda: versions)


@pytest.mark.parametrize("index", [0, 1])
def test_a_share_is_refused_where_others_were_made_with_other_library_versions(
    tmp_path: Path, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_versions(monkeypatch, torch="0.1", numpy="2")
    make_share(tmp_path / "a", 0)
    have_versions(monkeypatch, torch="0.2", numpy="2")
    with pytest.raises(ArtifactError, match=r"other versions: torch 0\.1 there and 0\.2 here\..*force=true"):
        make_share(tmp_path / "a", index)
    assert not is_being_built(tmp_path / "a")
    assert (partial_of(tmp_path / "a") / "0.txt").read_text() == "0"
    have_versions(monkeypatch, torch="0.1", numpy="2")
    assert missing_shares(tmp_path / "a", COUNT) == [1, 2, 3]
    assert make_share(tmp_path / "a", 1)


def kill_first_share(folder: Path, work: Callable[[Path], object]) -> None:
    """Let a job be killed in its first share after some work in the partial folder."""
    with (
        pytest.raises(KeyError),
        building_share(folder, DESCRIPTION, Share(0, COUNT), wait=True) as partial,
    ):
        assert partial is not None
        work(partial)
        raise KeyError("stop")


def test_a_share_is_refused_where_a_killed_job_finished_shards_with_other_library_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_versions(monkeypatch, torch="0.1")
    kill_first_share(tmp_path / "a", lambda partial: Shard(partial, 0, 1).keep(["x"], [], {}))
    have_versions(monkeypatch)
    with pytest.raises(ArtifactError, match=r"torch 0\.1 there and unknown here"):
        make_share(tmp_path / "a", 1)


def test_a_share_begins_again_where_other_library_versions_finished_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_versions(monkeypatch, torch="0.1")
    kill_first_share(tmp_path / "a", lambda partial: (partial / "0.txt").write_text("half"))
    have_versions(monkeypatch, torch="0.2")
    assert make_share(tmp_path / "a", 1)
    assert not (partial_of(tmp_path / "a") / "0.txt").exists()


def _share_of_other_versions(folder: Path, ready: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        have_versions(patch, torch="0.1")
        _share_slowly(folder, 0, ready)


def test_a_share_is_refused_after_it_waited_for_one_of_other_library_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = FORK.Process(target=_share_of_other_versions, args=(tmp_path / "a", tmp_path / "ready"))
    worker.start()
    _wait_for(tmp_path / "ready")
    have_versions(monkeypatch, torch="0.2")
    with pytest.raises(ArtifactError, match=r"torch 0\.1 there and 0\.2 here"):
        make_share(tmp_path / "a", 1)
    worker.join(60)
    assert worker.exitcode == 0
    assert (partial_of(tmp_path / "a") / "0.txt").exists()


def test_while_all_locks_of_an_artifact_are_held_no_job_begins(tmp_path: Path) -> None:
    make_share(tmp_path / "a", 0)
    worker = FORK.Process(target=make_share, args=(tmp_path / "a", 1))
    with locked_or_skip(tmp_path / "a") as is_locked:
        assert is_locked
        worker.start()
        worker.join(0.3)
        assert missing_shares(tmp_path / "a", COUNT) == [1, 2, 3]
    worker.join(60)
    assert missing_shares(tmp_path / "a", COUNT) == [2, 3]


@pytest.mark.parametrize("shared", [False, True])
def test_an_artifact_that_a_job_is_at_work_in_is_skipped(tmp_path: Path, shared: bool) -> None:
    folder = tmp_path / "a"
    job = building_share(folder, DESCRIPTION, Share(0, COUNT), wait=True) if shared else building(folder, DESCRIPTION)
    with job as partial:
        assert partial is not None
        with locked_or_skip(folder) as is_locked:
            assert not is_locked
        (partial / "0.txt").write_text("0")
    with locked_or_skip(folder) as is_locked:
        assert is_locked
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial" if shared else "a"]


def test_a_changed_shard_is_made_again_and_the_log_says_which_items(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "shards").mkdir()
    shard, path = Shard(tmp_path, 0, 2), tmp_path / "rows.csv"
    path.write_text("a")
    shard.keep(["x", "y"], [path], {})
    assert shard.read(["x", "y"]) is not None
    path.write_text("b")
    assert shard.read(["x", "y"]) is None
    path.unlink()
    assert shard.read(["x", "y"]) is None
    assert caplog.text.count("making items 0 to 2 again") == 2


def test_tidying_removes_what_a_kill_after_publishing_left_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    publish(folder)
    for left in (".a.lock", ".a.share-0-of-4.lock", ".ab.lock", ".b.lock"):
        (tmp_path / left).touch()
    (tmp_path / "a.old").mkdir()
    tidy(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ab.lock", ".b.lock", "a"]


def test_tidying_that_cannot_remove_a_folder_gives_its_locks_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_empty(*args: object) -> None:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    make_share(tmp_path / "a", 0)
    monkeypatch.setattr("icm_pipeline.store.partial.remove_if_empty", not_empty)
    tidy(tmp_path / "a")
    assert not is_being_built(tmp_path / "a")


def test_jobs_that_give_one_key_two_names_make_it_once(tmp_path: Path) -> None:
    assert make_share(tmp_path / "tiny-gender-k", 0)
    assert not make_share(tmp_path / "tiny-age-k", 0)
    assert missing_shares(tmp_path / "tiny-age-k", COUNT) == [1, 2, 3]
    with building(tmp_path / "tiny-gender-k", DESCRIPTION):
        assert is_being_built(tmp_path / "tiny-age-k")
    assert not publish(tmp_path / "tiny-age-k")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-gender-k"]


def test_force_goes_on_from_nothing_that_another_job_left(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    make_share(folder, 0)
    with building(folder, DESCRIPTION, force=True) as partial:
        assert partial is not None and not (partial / "0.txt").exists()


def test_a_forced_job_goes_on_from_what_a_killed_forced_job_left(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with pytest.raises(KeyError), building(folder, DESCRIPTION, force=True) as partial:
        assert partial is not None
        (partial / "0.txt").write_text("0")
        raise KeyError
    with building(folder, DESCRIPTION, force=True) as partial:
        assert partial is not None and (partial / "0.txt").exists()


def test_a_forced_job_does_not_publish_what_another_left_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    publish(folder)
    folder.rename(partial_of(folder))  # as a job leaves it that dies between manifest and rename
    with building(folder, DESCRIPTION, force=True) as partial:
        assert partial is not None and not (partial / "all.txt").exists()


def test_the_time_of_stopped_jobs_that_one_goes_on_from_is_added_up_to_what_they_left_last(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    for seconds in (100, 20):
        with pytest.raises(KeyError), building(folder, DESCRIPTION) as partial:
            assert partial is not None
            (partial / "0.txt").write_text("0")
            begun = (partial / STAMP).stat().st_mtime
            os.utime(partial / "0.txt", (begun + seconds, begun + seconds))
            raise KeyError
    with building(folder, DESCRIPTION) as partial:
        assert partial is not None
        assert seconds_before(partial) == pytest.approx(120, abs=1)
    artifact = open_artifact(folder)
    assert artifact is not None and artifact.manifest.seconds == pytest.approx(120, abs=5)


@pytest.mark.parametrize("forced", [False, True])
def test_no_time_of_shares_or_of_what_a_job_begins_again_is_added(tmp_path: Path, forced: bool) -> None:
    folder = tmp_path / "a"
    make_share(folder, 0)
    left = partial_of(folder) / "0.txt"
    os.utime(left, (time.time() + 1000, time.time() + 1000))
    if forced:
        (partial_of(folder) / "shards" / f"share-0-of-{COUNT}.json").unlink()
    with building(folder, DESCRIPTION, force=forced) as partial:
        assert partial is not None and seconds_before(partial) == 0.0


def test_a_clock_that_jumps_back_while_an_artifact_is_made_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_share(tmp_path / "a", 0)
    for path in partial_of(tmp_path / "a").rglob("*"):
        os.utime(path, (4_000_000_000, 4_000_000_000))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert not make_share(tmp_path / "a", 0)
    assert publish(tmp_path / "a")
    artifact = open_artifact(tmp_path / "a")
    assert artifact is not None
    assert artifact.manifest.seconds >= 0


def test_a_full_disk_while_a_share_is_made_says_where_the_work_is_kept(tmp_path: Path) -> None:
    make_share(tmp_path / "a", 0)
    with (
        pytest.raises(ArtifactError, match=r"No space.*is kept in .*a\.partial"),
        building_share(tmp_path / "a", DESCRIPTION, Share(1, COUNT), wait=True),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert missing_shares(tmp_path / "a", COUNT) == [1, 2, 3]


@pytest.mark.parametrize(("count", "total"), [(1, 5), (3, 7), (8, 3)])
def test_shares_cover_everything_once_and_evenly(count: int, total: int) -> None:
    parts = [Share(index, count).of(total) for index in range(count)]
    assert [item for part in parts for item in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
