"""`icm explore` is a job of stage=explore: its own words get their group, a word alone is what to open."""

from dataclasses import fields
from pathlib import Path

import pytest

from icm_pipeline.cli.exploring import OWN, job_words, words_or_end
from icm_pipeline.config.exploring import ExploreConfig
from icm_pipeline.pipeline.table import kinds_of_stages
from icm_pipeline.store.artifacts import ArtifactError
from icm_pipeline.store.shelf import read_shelf
from tests.helpers.shelf import KEYS, make


def test_words_of_its_own_get_the_group_and_others_stay() -> None:
    assert job_words(["model=tiny", "vectors=x.safetensors", "alpha=3", "port=80"]) == [
        "stage=explore", "model=tiny", "explore.vectors=x.safetensors", "alpha=3", "explore.port=80",
    ]  # fmt: skip


def test_a_misspelt_word_is_answered_with_its_own() -> None:
    with pytest.raises(SystemExit, match=r"error: there is no promt\. Did you mean prompt\? Known here: of, vectors, "):
        words_or_end(["promt=x"])
    for word in ("alpha=3", "seed=1", "experiment=bench", "probe.C=1", "+window=whole"):
        assert job_words([word]) == ["stage=explore", word]


def test_its_help_has_every_setting_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        words_or_end(["--help"])
    said = capsys.readouterr().out
    for each in fields(ExploreConfig):
        assert f"\n  {'' if each.name in OWN else 'explore.'}{each.name}=" in said
    assert "an artifact's folder or key" in said
    assert max(map(len, said.splitlines())) <= 120


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


@pytest.mark.parametrize("content", ["{}", '{"stage": "pro'])
def test_a_half_written_manifest_is_told_with_its_folder(tmp_path: Path, content: str) -> None:
    folder = make(tmp_path, "probe", KEYS["probe"], {})
    (folder / "manifest.json").write_text(content)
    with pytest.raises(SystemExit, match=f"error: The artifact {folder} is damaged: its manifest.json cannot be read"):
        words_or_end([str(folder)])


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "alpha=3,k=2"
    folder.mkdir()
    assert job_words([str(folder)]) == ["stage=explore", f"explore.of='{folder}'"]
    assert job_words(["alpha=3", "hydra/launcher=x"]) == ["stage=explore", "alpha=3", "hydra/launcher=x"]
    with pytest.raises(SystemExit, match="error: There is no nowhere/k=2"):
        words_or_end(["nowhere/k=2"])


def test_a_path_that_is_not_there_is_named_and_opens_nothing_of_the_same_name(tmp_path: Path) -> None:
    folder = make(tmp_path, "probe", KEYS["probe"], {})
    for place in ("nowhere/at/all", f"nowhere/{folder.name}"):
        with pytest.raises(SystemExit, match=f"error: There is no {place}"):
            words_or_end([place, f"paths.outputs={tmp_path}"])
    shelf = read_shelf(tmp_path, kinds_of_stages())
    assert shelf.find(f"probe/{folder.name}").folder == folder
    with pytest.raises(ArtifactError, match="No artifact"):
        shelf.find(f"nowhere/{folder.name}")
