"""What `--help` says of every group, and what a shell can complete."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from icm_pipeline.__main__ import flags_first
from icm_pipeline.config.compose import register_resolvers
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.help_page import GROUPS, choices_of, groups_help
from icm_pipeline.pipeline.table import stages_help

NO_GROUPS = {"hydra"}  # a folder that holds groups


def test_every_group_is_explained_with_its_choices() -> None:
    groups = {path.name for path in conf_path().iterdir() if path.is_dir()} - NO_GROUPS
    assert set(GROUPS) == groups | {"hydra/launcher"}
    text = groups_help()
    for group, (about, example) in GROUPS.items():
        assert f"{group:<16}{about}; {example}" in text
        assert choices_of(group)
        assert all(name in text for name in choices_of(group))
    assert max(map(len, text.splitlines())) <= 120
    assert "where --multirun jobs run (also: basic, joblib); hydra/launcher=" in text


@pytest.mark.parametrize("group", [group for group in GROUPS if not group.startswith("hydra/")])
def test_the_example_of_every_group_composes(group: str) -> None:
    register_schema()
    register_resolvers()
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        compose("config", overrides=GROUPS[group][1].split())


def test_help_and_the_whole_configuration_are_printed_and_nothing_is_run(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "icm_pipeline"]
    imported = subprocess.run(
        [sys.executable, "-c", "import sys, icm_pipeline.cli.job; print(*sys.modules)"],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert not {"torch", "numpy"} & set(imported.stdout.split())
    said = subprocess.run([*words, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert groups_help() in said.stdout
    assert stages_help() in said.stdout
    assert max(map(len, said.stdout.splitlines())) <= 120
    assert 'eval "$(icm --shell-completion install=bash)"' in said.stdout
    words += ["--cfg", "job", "alpha=7"]
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert "\nalpha: 7\n" in said.stdout  # as it is written, since it may be auto
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("icm attribute=", "attribute=age"), ("icm layers.r", "layers.rule="), ("icm model=tiny attri", "attribute")],
)
def test_a_shell_completes_groups_choices_and_settings(typed: str, offered: str, tmp_path: Path) -> None:
    program = "import sys; sys.argv[0] = 'icm'; from icm_pipeline.__main__ import run; run()"
    words = [sys.executable, "-c", program, "--shell-completion", "query=bash"]
    environment = {**os.environ, "COMP_LINE": typed, "COMP_POINT": str(len(typed))}
    said = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert offered in said.stdout.split()


def test_settings_may_stand_before_and_after_flags() -> None:
    words = ["hydra/launcher=joblib", "--multirun", "alpha=2,4", "--config-dir", "my/conf", "~attribute.options.man"]
    assert flags_first(words) == [
        "--multirun", "--config-dir", "my/conf", "~attribute.options.man", "hydra/launcher=joblib", "alpha=2,4",
    ]  # fmt: skip
    assert flags_first(["--config-dir=a=b", "--cfg", "job"]) == ["--config-dir=a=b", "--cfg", "job"]
    assert flags_first(["--config-dir", "a=b", "alpha=2", "-m"]) == ["--config-dir", "a=b", "-m", "alpha=2"]
