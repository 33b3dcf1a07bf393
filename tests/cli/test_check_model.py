"""`icm check-model`: 0 where every promise is kept, 1 where one is not or none can be tried; a file to start from."""

import re
import zlib
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
        ("FluxPipelin", "Did you mean FluxPipeline?"),
        ("StableDiffusionpipeline", "Did you mean StableDiffusionPipeline?"),
        ("FluxModularPipeline", "is modular: .* FluxPipeline has the same denoiser, and can be."),
        ("UNet2DConditionModel", "neither a folder nor a pipeline"),
        ("flux2_klein", "neither a folder nor a pipeline .* Give Flux2KleinPipeline"),
        ("tiny", "neither a folder nor a pipeline .* Give embedded:tiny"),
        ("IFPipeline", "built of defaults and may lack parts: save one of any size, and check its folder"),
        ("Kandinsky3Pipeline", "parameters by its defaults: save a smaller pipeline"),
        ("tests", "has no model_index.json"),
    ],
)
def test_what_cannot_be_checked_says_why(model: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_check([model]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_module_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for run in (run_models, lambda words: run_check(["QwenImagePipeline", *words])):
        assert run(["--module", "no_such_family"]) == 1
        assert "--module no_such_family cannot be imported" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("x = ", "SyntaxError: invalid syntax"),
        ("nothing", "NameError: name 'nothing' is not defined."),
        ("{}['a']", "KeyError: 'a'."),
        ("raise RuntimeError('no')", "RuntimeError: no."),
        ("raise SystemExit(3)", "SystemExit: 3."),
        (
            "from icm_pipeline import register_family as r\nr(3)",
            "A family is a Family(name=..., ...), and this is a int.",
        ),
    ],
)
def test_a_module_that_ends_in_an_error_is_named_with_it(
    registered: Path, capsys: pytest.CaptureFixture[str], body: str, reason: str
) -> None:
    name = f"broken_{zlib.crc32(body.encode())}"
    (registered / f"{name}.py").write_text(body)
    for run in (run_models, lambda words: run_check(["QwenImagePipeline", *words])):
        assert run(["--module", name]) == 1
        assert f"error: --module {name} cannot be imported: {reason}" in capsys.readouterr().err


SILENT = """
import torch
from diffusers import StableDiffusionPipeline


class Silent(StableDiffusionPipeline):
    def __call__(self, prompt=None, **kwargs):
        return (torch.zeros(4, 4, 8, 8),)
"""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--call", "bogus=1"], "error: bogus is no argument of StableDiffusionPipeline. It takes: prompt, height"),
        (["--call", "eat=1"], "Did you mean eta?"),
        (["--call", "height"], "error: --call height has no value: write height=<value>."),
        (["--steps", "0"], "error: --steps 0: give 1 or more."),
        (["--size", "-1"], "error: --size -1: give 1 or more."),
        (["--device", "cuder"], "compute.device=cuder cannot be used here (Expected one of cpu"),
    ],
)
def test_a_call_that_cannot_be_made_says_why(
    model: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_check([model, *words]) == 1
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("known") / "model")


@pytest.mark.parametrize("more", [[], ["--family", "stable_diffusion"]])
def test_a_pipeline_that_never_calls_its_denoiser_is_told_so(
    registered: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    (registered / "silent.py").write_text(SILENT)
    assert run_check([saved(registered / "model", "Silent"), "--module", "silent", *more]) == 1
    assert "without a call of its UNet2DConditionModel: it is not what denoises" in capsys.readouterr().err


def test_an_index_that_is_no_mapping_is_told_as_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model_index.json").write_text("[]")
    assert run_check([str(tmp_path)]) == 1
    assert "model_index.json holds a list, and no pipeline's parts by name." in capsys.readouterr().err
