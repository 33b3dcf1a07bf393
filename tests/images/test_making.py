"""Image sets: a job stopped anywhere and resumed leaves the bytes of one that was never stopped."""

import errno
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from icm_pipeline.generation.batches import Batch
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import Sample
from icm_pipeline.images import activations, making
from icm_pipeline.images.activations import read_activations, read_recording
from icm_pipeline.images.table import Pictures, read_table
from icm_pipeline.store.artifacts import Artifact, ArtifactError, open_artifact
from icm_pipeline.store.building import building
from icm_pipeline.store.manifest import FileEntry, Manifest
from icm_pipeline.store.shards import Share
from tests.helpers.image_sets import (
    JOBS,
    LAYERS,
    MakeBatch,
    activations_of,
    make_both,
    make_set,
    picture_of,
    recording_of,
)


class Stopped(BaseException):
    """Stands for a kill: nothing catches it."""


def make_pictures(jobs: list[Job]) -> Batch:
    return Batch(jobs, [Sample(job, picture_of(job)) for job in jobs])


def make_activations(jobs: list[Job]) -> Batch:
    return Batch(jobs, [], recording_of(jobs))


def stopping_after(num_batches: int, make_batch: MakeBatch, calls: list[int]) -> MakeBatch:
    def limited(jobs: list[Job]) -> Batch:
        if len(calls) == num_batches:
            raise Stopped
        calls.append(1)
        return make_batch(jobs)

    return limited


def run(folder: Path, make_batch: MakeBatch = make_both, shard_size: int = 4) -> None:
    folder.mkdir(exist_ok=True)
    make_set(folder, make_batch, shard_size=shard_size)


def content(folder: Path) -> dict[str, bytes]:
    """Return every file that would be published."""
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in files.items() if not name.startswith("shards/")}


def as_artifact(tmp_path: Path, make_batch: MakeBatch = make_both, options: list[str] | None = None) -> Artifact:
    with building(tmp_path / "set", Manifest("generate", "k")) as partial:
        assert partial is not None
        make_set(partial, make_batch, options=options or [])
    artifact = open_artifact(tmp_path / "set")
    assert artifact is not None
    return artifact


@pytest.mark.parametrize("make_batch", [make_both, make_pictures, make_activations])
@pytest.mark.parametrize("num_batches", [0, 1, 2, 3, 6])
def test_a_stopped_and_resumed_set_has_the_bytes_of_an_unbroken_one(
    tmp_path: Path, make_batch: MakeBatch, num_batches: int
) -> None:
    run(tmp_path / "unbroken", make_batch)
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", stopping_after(num_batches, make_batch, []))
    run(tmp_path / "stopped", make_batch)
    assert content(tmp_path / "stopped") == content(tmp_path / "unbroken")


def test_a_resumed_set_makes_only_what_was_missing(tmp_path: Path) -> None:
    first: list[int] = []
    second: list[int] = []
    with pytest.raises(Stopped):
        run(tmp_path / "set", stopping_after(5, make_both, first))
    run(tmp_path / "set", stopping_after(100, make_both, second))
    assert (len(first), len(second)) == (5, 3)  # 7 batches; the half shard of the first run is made again


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (4, 14), (14, 4)])
def test_a_set_resumed_with_another_shard_size_is_still_the_same(tmp_path: Path, before: int, after: int) -> None:
    run(tmp_path / "unbroken")
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", stopping_after(5, make_both, []), shard_size=before)
    run(tmp_path / "stopped", shard_size=after)
    assert content(tmp_path / "stopped") == content(tmp_path / "unbroken")


def test_a_set_stopped_while_it_joins_its_shards_makes_no_image_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: object) -> None:
        raise Stopped

    run(tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        patch.setattr(making, "join_activations", stopped)
        with pytest.raises(Stopped):
            run(tmp_path / "stopped")
    run(tmp_path / "stopped", stopping_after(0, make_both, []))
    assert content(tmp_path / "stopped") == content(tmp_path / "unbroken")


@pytest.mark.parametrize("damage", ["deleted", "a bit flipped", "cut short"])
@pytest.mark.parametrize(
    "what", ["shards/0000000-0000004.json", "shards/0000000-0000004.safetensors", "images/000002.png"]
)
def test_a_shard_that_is_damaged_while_a_job_is_stopped_is_made_again(tmp_path: Path, damage: str, what: str) -> None:
    run(tmp_path / "unbroken")
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", stopping_after(4, make_both, []))
    path, remade = tmp_path / "stopped" / what, list[int]()
    data = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    elif damage == "a bit flipped":
        path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    else:
        path.write_bytes(data[: len(data) // 2])
    run(tmp_path / "stopped", stopping_after(100, make_both, remade))
    assert len(remade) == 2 + 3  # the damaged shard's batches and those that were missing
    assert content(tmp_path / "stopped") == content(tmp_path / "unbroken")


@pytest.mark.parametrize("when", [0, 4_000_000_000])
def test_times_of_change_mean_nothing(tmp_path: Path, when: int) -> None:
    run(tmp_path / "unbroken")
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", stopping_after(5, make_both, []))
    for path in (tmp_path / "stopped").rglob("*"):
        os.utime(path, (when, when))
    remade: list[int] = []
    run(tmp_path / "stopped", stopping_after(100, make_both, remade))
    assert len(remade) == 3
    assert content(tmp_path / "stopped") == content(tmp_path / "unbroken")


def share_of(folder: Path, index: int, count: int, make_batch: MakeBatch = make_both) -> bool:
    folder.mkdir(exist_ok=True)
    return make_set(folder, make_batch, share=Share(index, count))


@pytest.mark.parametrize("count", [2, 3, 5, 9])
@pytest.mark.parametrize("make_batch", [make_both, make_pictures, make_activations])
def test_shares_make_every_image_once_in_the_batches_and_bytes_of_one_job(
    tmp_path: Path, count: int, make_batch: MakeBatch
) -> None:
    made: list[list[str]] = []

    def noted(jobs: list[Job]) -> Batch:
        made.append([job.image_id for job in jobs])
        return make_batch(jobs)

    run(tmp_path / "one", noted)
    alone, made[:] = sorted(made), []
    for index in reversed(range(count)):
        assert not share_of(tmp_path / "shared", index, count, noted)
    assert sorted(made) == alone
    run(tmp_path / "shared", stopping_after(0, make_batch, []))
    assert content(tmp_path / "shared") == content(tmp_path / "one")


def test_a_set_begun_in_two_shares_is_finished_in_three_or_alone(tmp_path: Path) -> None:
    run(tmp_path / "one")
    calls: list[int] = []
    share_of(tmp_path / "shared", 0, 2, stopping_after(100, make_both, calls))
    share_of(tmp_path / "shared", 2, 3, stopping_after(100, make_both, calls))
    run(tmp_path / "shared", stopping_after(100, make_both, calls))
    assert len(calls) == 7
    assert content(tmp_path / "shared") == content(tmp_path / "one")


def test_no_shards_are_left_in_a_finished_set(tmp_path: Path) -> None:
    artifact = as_artifact(tmp_path)
    assert {path.name for path in artifact.folder.iterdir()} == {
        "images", "images.csv", "activations", "recording.json", "manifest.json",
    }  # fmt: skip
    assert not any("shards" in name for name in artifact.manifest.files)


def test_layers_keep_the_order_in_which_the_network_ran(tmp_path: Path) -> None:
    def backwards(jobs: list[Job]) -> Batch:
        recording = recording_of(jobs)
        return Batch(jobs, [], replace(recording, kinds=dict(reversed(recording.kinds.items()))))

    assert list(read_recording(as_artifact(tmp_path, backwards)).files) == list(reversed(LAYERS))


def test_a_batch_that_does_not_fit_into_memory_is_halved_for_good_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: list[int] = []

    def small_memory(jobs: list[Job]) -> Batch:
        sizes.append(len(jobs))
        if len(jobs) > 2:
            raise MemoryError(f"{len(jobs)} image(s) at once do not fit into memory.")
        return make_both(jobs)

    (tmp_path / "set").mkdir()
    make_set(tmp_path / "set", small_memory, 7, 7)
    assert sizes == [7, 3, *[1] * 14]
    assert "Going on with 3 at once" in caplog.text
    assert len(list((tmp_path / "set" / "images").iterdir())) == len(JOBS)


@pytest.mark.parametrize(
    ("room", "expected"), [(100, [1, 2, 4, 7]), (5, [1, 2, 4, 7, 3, 3, 1]), (1, [1, 2, *[1] * 13])]
)
def test_a_growing_batch_doubles_until_memory_is_full_and_makes_the_same_set(
    tmp_path: Path, room: int, expected: list[int]
) -> None:
    sizes: list[int] = []

    def limited(jobs: list[Job]) -> Batch:
        sizes.append(len(jobs))
        if len(jobs) > room:
            raise MemoryError(f"{len(jobs)} image(s) at once do not fit into memory.")
        return make_both(jobs)

    (tmp_path / "set").mkdir()
    make_set(tmp_path / "set", limited, 1, 14, grow=True)
    assert sizes == expected
    run(tmp_path / "plain")
    assert content(tmp_path / "set") == content(tmp_path / "plain")


def test_one_image_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    def no_memory(jobs: list[Job]) -> Batch:
        raise MemoryError(f"{len(jobs)} image(s) at once do not fit into memory.")

    with pytest.raises(MemoryError, match="1 image"):
        make_set(tmp_path, no_memory, 4, 4)


def test_a_batch_never_ends_early_at_the_edge_of_a_shard(tmp_path: Path) -> None:
    sizes: list[int] = []

    def counting(jobs: list[Job]) -> Batch:
        sizes.append(len(jobs))
        return make_pictures(jobs)

    (tmp_path / "set").mkdir()
    make_set(tmp_path / "set", counting, 5, 4)
    assert sizes == [5, 5, 4]


def test_the_table_lists_every_job_in_order(tmp_path: Path) -> None:
    rows = read_table(as_artifact(tmp_path))
    assert [Job(row.image_id, row.prompt, row.prompt_index, row.seed) for row in rows] == JOBS
    assert {row.option for row in rows} == {""}


def test_the_table_says_what_each_image_was_steered_to(tmp_path: Path) -> None:
    options = [["man", "woman"][index % 2] for index in range(len(JOBS))]
    assert [row.option for row in read_table(as_artifact(tmp_path, options=options))] == options


def test_options_must_match_the_jobs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        as_artifact(tmp_path, options=["man"])


def test_pictures_come_back_pixel_by_pixel_in_the_tables_order(tmp_path: Path) -> None:
    pictures = Pictures(read_table(as_artifact(tmp_path)))
    assert [p.tobytes() for p in pictures] == [picture_of(job).tobytes() for job in JOBS]


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    rows = read_table(as_artifact(tmp_path))
    rows[3].path.write_bytes(b"no picture")
    with pytest.raises(OSError, match=rows[3].path.name):
        list(Pictures(rows))


@pytest.mark.parametrize("layer", LAYERS)
def test_activations_come_back_per_layer_in_the_order_of_the_jobs(tmp_path: Path, layer: str) -> None:
    artifact = as_artifact(tmp_path)
    pooled = read_activations(artifact, read_recording(artifact).files[layer])
    assert pooled.shape == (len(JOBS), 2, LAYERS[layer])
    assert torch.equal(pooled.rows(torch.arange(len(JOBS))).movedim(0, 1), activations_of(JOBS)[layer])


@pytest.mark.parametrize("halved", [False, True])
def test_activations_read_for_a_gpu_are_those_that_are_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, halved: bool
) -> None:
    """Without a GPU torch locks no pages; the way of reading is the same."""
    empty, x = torch.empty, torch.randn(7, 3, 5)
    monkeypatch.setattr(torch, "empty", lambda *args, pin_memory=False, **kwargs: empty(*args, **kwargs))
    save_file(activations._encoded(x, halved), tmp_path / "0000.safetensors")
    artifact = Artifact(tmp_path, Manifest("generate", "0", files={"0000.safetensors": FileEntry(0, "")}))
    mapped, read = (read_activations(artifact, "0000.safetensors", pinned) for pinned in (False, True))
    assert read.tensors().keys() == mapped.tensors().keys()
    assert all(torch.equal(tensor, mapped.tensors()[name]) for name, tensor in read.tensors().items())
    assert read.values.dtype == (torch.float16 if halved else torch.float32)


def test_every_recorded_layer_has_its_file(tmp_path: Path) -> None:
    artifact = as_artifact(tmp_path)
    recording = read_recording(artifact)
    assert set(recording.files) == set(recording.kinds) == set(LAYERS)
    assert all(artifact.path(name).exists() for name in recording.files.values())
    assert (recording.steps, recording.noise_levels) == ([0, 1], [1.0, 0.5])


def test_a_set_without_activations_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"recording\.json"):
        read_recording(as_artifact(tmp_path, make_pictures))


def test_activations_alone_make_no_table(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"images\.csv"):
        read_table(as_artifact(tmp_path, make_activations))


class Unwritable:
    """Stands for a picture on a disk without room."""

    def save(self, path: Path, format: str) -> None:
        Path(path).write_bytes(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("broken", [0, 5, 13])
def test_a_picture_that_cannot_be_written_ends_the_set_and_its_shard_is_not_kept(tmp_path: Path, broken: int) -> None:
    def make_batch(jobs: list[Job]) -> Batch:
        samples = [Sample(job, Unwritable() if job == JOBS[broken] else picture_of(job)) for job in jobs]
        return Batch(jobs, samples, recording_of(jobs))

    with pytest.raises(ArtifactError, match=r"No space left on device.*run the same command again"):
        as_artifact(tmp_path, make_batch)
    partial = tmp_path / "set.partial"
    assert sorted(path.stem for path in partial.glob("shards/*.json")) == [
        f"{start:07d}-{min(start + 4, 14):07d}" for start in range(0, broken - broken % 4, 4)
    ]
    run(tmp_path / "unbroken")
    artifact = as_artifact(tmp_path)
    whole = {name: data for name, data in content(artifact.folder).items() if name != "manifest.json"}
    assert whole == content(tmp_path / "unbroken")


def test_a_slow_disk_does_not_hold_up_the_next_batch(tmp_path: Path) -> None:
    batches, at_first_save = list[int](), list[int]()

    class Slow:
        def save(self, path: Path, format: str) -> None:
            deadline = time.monotonic() + 60
            while len(batches) < 2 and time.monotonic() < deadline:
                time.sleep(0.001)
            at_first_save.append(len(batches))
            Path(path).write_bytes(b"picture")

    def make_batch(jobs: list[Job]) -> Batch:
        batches.append(len(jobs))
        return Batch(jobs, [Sample(job, Slow()) for job in jobs])

    run(tmp_path / "set", make_batch)
    assert at_first_save[0] >= 2
