"""A configuration of one's own goes on into the commands made from it: to processes on devices, and into messages."""

import shlex
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from icm_pipeline.config.compose import quoted
from tests.helpers.command_line import command, run_words

HAT = """name: hat
options: {cap: [a photo of a person in a cap], hood: [a photo of a person in a hood]}
probe_templates: ["a photo of a {}"]
probe_subjects: [person]
evaluation_prompts: [a photo of a singer]
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "my conf"
    (folder / "attribute").mkdir(parents=True)
    (folder / "attribute" / "hat.yaml").write_text(HAT)
    return folder


def refused(words: list[str], folder: Path) -> str:
    result = run_words(words[3:], folder)  # what follows `python -m icm_pipeline`
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("way", ["--config-dir", "hydra.searchpath"])
def test_the_command_that_a_message_names_finds_the_configuration(mine: Path, tmp_path: Path, way: str) -> None:
    where = ["--config-dir", "my conf"] if way == "--config-dir" else [f'hydra.searchpath=["file://{mine}"]']
    words = command(tmp_path / "outputs", "attribute=hat", "stage=select")
    words[3:3] = where
    error = refused(words, tmp_path)
    named = shlex.split(error.strip().partition("begin with: ")[2])
    assert named[:3] == ["python", "-m", "icm_pipeline"]
    again = [words[0], *named[1:], "stage=probe"]  # the last of two words counts
    assert "stage=probe needs the artifact of stage=generate" in refused(again, tmp_path)


@pytest.mark.parametrize(
    "name", ["plain", "o (1)", "it's", "a,b=c", r"back\'slash", "${HOME}", "été [x]", "end\\", r"\a", r"\${x}", r"\\'"]
)
def test_a_path_of_any_characters_is_read_by_hydra_as_it_is(name: str) -> None:
    value = OverridesParser.create().parse_override(f"hydra.sweep.dir={quoted(Path(name))}").value()
    assert Path(OmegaConf.create({"dir": str(value)}).dir) == Path(name)


@pytest.mark.slow
def test_the_processes_on_devices_find_the_configuration(mine: Path, tmp_path: Path) -> None:
    words = command(tmp_path / "outputs", "attribute=hat", "stage=originals", "devices=[cpu,cpu]")
    words[3:3] = ["--config-dir", "my conf"]
    words += ["evaluate.images_per_prompt=2", "compute.batch_size=1", "model.num_steps=1"]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("outputs/artifacts/originals/tiny-hat-*/manifest.json"))) == 1
