"""Runs that change only what has to change: the others are the originals, by the labeler's word or by an early look."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.schema import Settings
from icm_pipeline.images.making import take_over
from icm_pipeline.methods.vectors import load_vectors
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.table import stages_of
from icm_pipeline.results.images import read_steered
from icm_pipeline.store.artifacts import Artifact, open_artifact
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.settings import TINY

LEAST = (
    "method.assignment=least_change", "evaluate.images_per_prompt=4",
    "attribute.evaluation_prompts=[a face of a doctor,a face of a nurse]",
)  # fmt: skip
Ran = Callable[..., dict[str, Path]]


@pytest.fixture(scope="module")
def ran(
    settings_with: Callable[..., Settings], tiny_run: Path, tmp_path_factory: pytest.TempPathFactory, models: ModelCache
) -> Ran:
    """Give a function that runs the stages up to one, from those of a finished run, and returns their folders."""
    outputs = tmp_path_factory.mktemp("least") / "outputs"
    shutil.copytree(tiny_run, outputs)

    def made(*words: str, last: str = "evaluate") -> dict[str, Path]:
        settings = settings_with(*TINY, f"paths.outputs={outputs}", *LEAST, *words)
        pipeline, stages = Pipeline(settings, [], NoTracker(), models=models), stages_of(settings)
        for stage in stages[: stages.index(last) + 1]:
            pipeline.run(stage)
        return {stage: Path(folder) for stage, folder in pipeline.folders().items()}

    return made


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_only_what_must_was_changed(folders: dict[str, Path]) -> dict[str, Any]:
    assigned = rows_of(folders["assign"] / "assigned.csv")
    made = {row["id"]: row for row in rows_of(folders["steer"] / "images.csv")}
    assert [row["id"] for row in assigned] == list(made)
    prompts = {row["prompt"] for row in made.values()}
    for prompt in prompts:
        options = [row["option"] for row in made.values() if row["prompt"] == prompt]
        assert sorted(options) == ["man", "man", "woman", "woman"]
    changed = set()
    for row in assigned:
        before, after = (
            (folders[stage] / "images" / f"{row['id']}.png").read_bytes() for stage in ("originals", "steer")
        )
        assert (made[row["id"]]["option"], made[row["id"]]["shown"]) == (row["option"], row["shown"])
        if row["option"] == row["shown"]:
            assert before == after
        else:
            changed.add(before != after)
    assert changed == {True}
    metrics: dict[str, Any] = json.loads((folders["evaluate"] / "metrics.json").read_text())
    alone = sum(row["option"] == row["shown"] for row in assigned) / len(assigned)
    assert metrics["left_alone"] == alone
    assert 0 < alone < 1
    return metrics


def test_images_that_show_what_they_are_to_are_the_originals(ran: Ran) -> None:
    folders = ran()
    metrics = check_only_what_must_was_changed(folders)
    assert metrics["steering"]["assignment"] == "least_change"
    labels = {row["id"]: row for row in rows_of(folders["assign"] / "assigned.csv")}
    for row in labels.values():
        seen = [float(row["seen_0"]), float(row["seen_1"])]
        assert row["shown"] == ("woman", "man")[seen[1] > seen[0]]


def check_what_was_not_taken_is_the_original(folders: dict[str, Path]) -> list[str]:
    rows = rows_of(folders["steer"] / "images.csv")
    for row in rows:
        before, after = ((folders[stage] / row["path"]).read_bytes() for stage in ("originals", "steer"))
        assert (before == after) == (row["option"] == row["shown"])
    return sorted(f"{row['prompt']}: {row['option']}" for row in rows)


def test_with_more_tries_as_many_images_change_and_the_others_are_the_originals(ran: Ran) -> None:
    one, more = ran(), ran("method.tries=9")
    assert one["assign"] == more["assign"]
    assert one["steer"] != more["steer"]
    assert check_what_was_not_taken_is_the_original(one) == check_what_was_not_taken_is_the_original(more)
    assert json.loads((more["steer"] / "steering.json").read_text())["tries"] == 9
    rows, alone = rows_of(more["steer"] / "images.csv"), rows_of(one["steer"] / "images.csv")
    assert "tried" not in alone[0]
    assert {row["turned"] for row in rows if not row["tried"]} <= {""}
    taken = [row for row in rows if row["option"] != row["shown"]]
    assert all(row["tried"] == row["option"] for row in taken)
    assert sum(bool(row["tried"]) for row in rows) > len(taken)  # those that were not taken are told too


def test_a_run_that_is_killed_while_it_takes_tries_goes_on(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(artifact: Artifact, image_ids: Sequence[str], folder: Path) -> None:
        take_over(artifact, image_ids[:1], folder)
        if not (folder / "images.csv").exists():  # those that are not tried, before any is made
            return take_over(artifact, image_ids, folder)
        raise OSError("no space left")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space left"):
        patched.setattr("icm_pipeline.stages.steer.take_over", killed)
        ran("method.tries=8")
    folders = ran("method.tries=8")
    assert len(check_what_was_not_taken_is_the_original(folders)) == 8


def test_a_look_at_the_first_steps_decides_as_well_and_judges_nothing(ran: Ran) -> None:
    folders = ran("method.look=2")
    check_only_what_must_was_changed(folders)
    manifest = json.loads((folders["assign"] / "manifest.json").read_text())
    assert list(manifest["parents"]) == ["foretell"]
    assert json.loads((folders["steer"] / "steering.json").read_text())["look"] == 2


def test_images_of_a_prompt_that_names_an_option_are_left_alone_and_count_for_no_quota(ran: Ran) -> None:
    prompts = "attribute.evaluation_prompts=[a face of a doctor,a face of a male nurse]"
    folders = ran(prompts, last="report")
    rows = rows_of(folders["steer"] / "images.csv")
    named = [row for row in rows if row["prompt"].endswith("male nurse")]
    assert [row["option"] for row in named] == [""] * 4
    for row in named:
        before, after = ((folders[stage] / row["path"]).read_bytes() for stage in ("originals", "steer"))
        assert before == after
    assert sorted(row["option"] for row in rows if row not in named) == ["man", "man", "woman", "woman"]
    assert not read_steered(open_artifact(folders["evaluate"]))[named[0]["id"]].has_missed
    assert load_vectors(folders["steer"] / "vectors.safetensors").words["man"]
