"""A run begins again from the configuration that Hydra saved of it, whichever option names the folder."""

import shlex
from pathlib import Path

import pytest
import yaml

from icm_pipeline.config.saved import primary_config, primary_words
from tests.helpers.command_line import run_words


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a command of a second, and return the folder `.hydra` of its run."""
    folder = tmp_path_factory.mktemp("run again")
    assert run_words(["stage=plan", "attribute=age", "layers.k=5"], folder).returncode == 0
    (found,) = folder.glob("outputs/runs/*/*/.hydra")
    return found


@pytest.mark.parametrize(
    "options", [["--config-path", "{}", "--config-name=config"], ["-cp", "{}"], ["--config-dir={}"]]
)
def test_the_saved_configuration_is_the_one_that_runs(saved: Path, tmp_path: Path, options: list[str]) -> None:
    named = [option.format(saved) for option in options]
    printed = run_words(["--cfg", "job", *named, "seed=3"], tmp_path)
    expected = yaml.safe_load((saved / "config.yaml").read_text()) | {"seed": 3}
    assert yaml.safe_load(printed.stdout) == expected
    told = run_words([*named, "stage=select"], tmp_path).stderr
    command = shlex.split(told.strip().partition("begin with: ")[2])
    assert command[3:] == [f"--config-path={saved}", "--config-name=config", "stage=generate"]
    assert list(tmp_path.glob("outputs/runs/*/*/.hydra"))  # in the package's folder for runs


def test_a_saved_configuration_can_be_swept(saved: Path, tmp_path: Path) -> None:
    planned = run_words(["--multirun", f"--config-path={saved}", "layers.k=1,2"], tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "select" in planned.stdout
    assert not (tmp_path / "outputs" / "artifacts").exists()


def test_a_folder_of_ones_own_choices_and_another_configuration_are_left_to_hydra(saved: Path, tmp_path: Path) -> None:
    for words in (["--config-dir", str(tmp_path)], ["-cp", str(saved), "-cn", "hydra"], ["stage=probe", "-m"]):
        assert primary_config(words) == (words, "config")
    assert (primary_words("config"), primary_words("mine")) == ([], ["--config-name=mine"])


def test_a_primary_configuration_without_the_schema_is_checked_against_it(saved: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((saved / "config.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values | {"alhpa": 2}))
    refused = run_words([f"--config-path={tmp_path}", "--config-name=mine"], tmp_path)
    assert "alhpa" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_configuration_saved_before_a_setting_was_there_runs(saved: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((saved / "config.yaml").read_text())
    del values["generate"]["store"]
    for judge in (values["labeler"], values["judge"], values["evaluate"]["clip"]):
        del judge["preprocess"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    planned = run_words(["stage=plan", f"--config-path={tmp_path}", "--config-name=config"], tmp_path)
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--config-path=none/.hydra", "--config-name=config"], "error: there is no folder none/.hydra."),
        (
            ["--config-path={run}", "--config-name=config"],
            "has no config.yaml for --config-name=config; it has: no YAML",
        ),
        (
            ["--config-path={run}/.hydra", "--config-name=confg"],
            "no confg.yaml for --config-name=confg; it has: config,",
        ),
        (["--config-name=confg"], "error: there is no confg.yaml for --config-name. Give --config-path"),
        (["--config-path={run}/.hydra", "model=sdxl"], "error: model=sdxl: the configuration saved in "),
        (["--config-path={run}/.hydra", "+labeler@judge=clip"], "has values and no groups. Set single values"),
    ],
)
def test_what_is_not_saved_is_refused_in_one_line(saved: Path, tmp_path: Path, options: list[str], said: str) -> None:
    refused = run_words([option.format(run=saved.parent) for option in options], tmp_path)
    assert refused.returncode == 1
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_configuration_of_ones_own_by_a_relative_path_is_told_to_be_named_whole(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("{}")
    refused = run_words(["--config-path=mine"], tmp_path)
    assert refused.stderr.startswith("error: --config-path of a configuration that no run saved must be a whole path")
