"""`icm explore` is a job of stage=explore: its own words get their group, a word alone is what to open."""

from pathlib import Path

import pytest

from icm_pipeline.cli.exploring import job_words, words_or_end
from tests.helpers.shelf import KEYS, make


def test_words_of_its_own_get_the_group_and_others_stay() -> None:
    assert job_words(["model=tiny", "vectors=x.safetensors", "alpha=3", "port=80"]) == [
        "stage=explore", "model=tiny", "explore.vectors=x.safetensors", "alpha=3", "explore.port=80",
    ]  # fmt: skip


def test_an_artifact_sets_model_and_attribute_unless_other_words_do(tmp_path: Path) -> None:
    folder = make(tmp_path, "probe", KEYS["probe"], {})
    found = job_words([str(folder)])
    assert found == [
        "stage=explore", f"explore.of='{folder}'", "model=local", "model.name=sd1-5", "attribute=skin_tone",
    ]  # fmt: skip
    by_key = job_words([KEYS["probe"][:8], f"paths.outputs={tmp_path}", "attribute=age"])
    assert by_key[1:] == [
        f"explore.of='{KEYS['probe'][:8]}'", "model=local", "model.name=sd1-5", f"paths.outputs={tmp_path}",
        "attribute=age",
    ]  # fmt: skip


def test_the_folder_of_a_run_sets_nothing(tmp_path: Path) -> None:
    assert job_words([str(tmp_path)]) == ["stage=explore", f"explore.of='{tmp_path}'"]


def test_two_things_at_once_are_refused() -> None:
    with pytest.raises(SystemExit, match="opens one thing, not a and b"):
        words_or_end(["a", "b"])


def test_an_artifact_that_is_not_there_ends_in_one_message(tmp_path: Path) -> None:
    make(tmp_path, "probe", KEYS["probe"], {})
    with pytest.raises(SystemExit, match="error: No artifact"):
        words_or_end(["ffff", f"paths.outputs={tmp_path}"])
