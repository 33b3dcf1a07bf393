"""`icm check-model`: 0 where every promise is kept, 1 where one is not or none can be tried; a file to start from."""

from pathlib import Path

import pytest

from icm_pipeline.backbones import registry
from icm_pipeline.cli.check_model import argument_of, run_check
from icm_pipeline.cli.models import run_models
from tests.helpers.pipelines import build

MODULE = """
from dataclasses import replace

from diffusers import StableDiffusionPipeline

from icm_pipeline import register_family
from icm_pipeline.backbones.families.stable_diffusion import STABLE_DIFFUSION


class {name}(StableDiffusionPipeline):
    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs)


register_family(replace(STABLE_DIFFUSION, name="mine", pipelines=("{name}",), also=(), rows="{rows}"))
"""


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Forget afterwards what modules have registered, and stand where they lie."""
    monkeypatch.setattr(registry, "OWN", [])
    monkeypatch.setattr("icm_pipeline.cli.models.OWN", registry.OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(folder: Path, class_name: str = "") -> str:
    """Save a tiny Stable Diffusion, as a class of another name where one is given."""
    build("sd").save_pretrained(folder)
    if class_name:
        index = folder / "model_index.json"
        index.write_text(index.read_text("utf-8").replace("StableDiffusionPipeline", class_name), "utf-8")
    return str(folder)


def test_a_folder_of_a_known_family_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_check([saved(tmp_path / "model"), "--size", "32"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "StableDiffusionPipeline is of the family stable_diffusion."
    assert len([line for line in told if line.startswith("ok ")]) == 10
    assert told[-1].startswith("All kept: 21 layers, down_blocks.0.")


def test_a_users_family_that_is_wrong_fails_and_is_listed(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (registered / "wrong_family.py").write_text(MODULE.format(name="Wrong", rows="conditional first"))
    words = ["--module", "wrong_family"]
    assert run_check([saved(registered / "model", "Wrong"), "--size", "32", "--steps", "1", *words]) == 1
    told = capsys.readouterr().out
    assert "Wrong is of the family mine." in told
    assert "FAILED  the conditional rows are those that follow the prompt" in told
    assert "the family has rows 0 to 3, and the prompt changes rows 4 to 7" in told
    assert run_models(words) == 0
    assert "mine" in capsys.readouterr().out
    assert run_models(["mine", *words]) == 0
    assert "conditional first" in capsys.readouterr().out


def test_of_a_class_that_is_not_known_the_file_is_printed(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (registered / "own_class.py").write_text(
        MODULE.format(name="Unknown", rows="embedded").split("register_family(")[0]
    )
    folder = saved(registered / "model", "Unknown")
    assert run_check([folder, "--size", "32", "--steps", "1", "--module", "own_class"]) == 0
    told = capsys.readouterr().out
    assert 'UNKNOWN = register_family(\n    Family(\n        name="unknown",' in told
    assert 'rows="unconditional first",' in told
    assert "All kept: 21 layers" in told


def test_a_class_alone_is_built_tiny(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_check(["QwenImagePipeline", "--explain", "--size", "64"]) == 0
    told = capsys.readouterr().out
    assert 'tokens={\n            r"transformer_blocks\\.\\d+\\.attn": "pair",' in told
    assert "All kept" in told


def test_a_further_argument_is_a_number_where_it_is_one() -> None:
    found = dict(map(argument_of, ["length=32", "text=a=b", "shift=0.5", "on=True"]))
    assert found == {"length": 32, "text": "a=b", "shift": 0.5, "on": True}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("NoPipeline", "NoPipeline is neither a folder nor a pipeline of diffusers"),
        ("UNet2DConditionModel", "neither a folder nor a pipeline"),
        ("Kandinsky3Pipeline", "parameters by its defaults: save a smaller pipeline"),
        ("tests", "has no model_index.json"),
    ],
)
def test_what_cannot_be_checked_says_why(model: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_check([model]) == 1
    assert message in capsys.readouterr().err


def test_a_module_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for run in (run_models, lambda words: run_check(["QwenImagePipeline", *words])):
        assert run(["--module", "no_such_family"]) == 1
        assert "--module no_such_family cannot be imported" in capsys.readouterr().err
