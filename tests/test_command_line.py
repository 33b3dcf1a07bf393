"""Bad input on the command line: one clear message, an exit code that is not zero, nothing half-written."""

from pathlib import Path

import pytest

from tests.command_line import run

BAD = {
    "an unknown stage": (["stage=probes"], ["stage=probes", "steer", "evaluate"]),
    "an unknown model": (["model=sd9"], ["sd9", "tiny"]),
    "an unknown attribute": (["attribute=mood"], ["mood", "gender"]),
    "a misspelled key": (["layers.kk=2"], ["kk"]),
    "a word for a number": (["layers.k=two"], ["layers.k", "two"]),
    "an alpha that is not finite": (["alpha=nan"], ["alpha=nan", "finite"]),
    "an unknown rule": (["layers.rule=best"], ["layers.rule=best", "top, worst"]),
    "a step beyond the last": (["method.first_step=6"], ["method.first_step=6", "6 steps"]),
    "an attribute with one option": (["~attribute.options.man"], ["at least two"]),
    "an empty prompt": (["attribute.evaluation_prompts=['  ']"], ["empty prompt"]),
    "no prompts": (["attribute.evaluation_prompts=[]"], ["evaluation_prompts is empty"]),
    "an embedded model that is not there": (["model.path=embedded:huge"], ["huge", "tiny"]),
    "a folder that is no pipeline": (["model.path=./nothing-here"], ["model_index.json"]),
}


@pytest.mark.parametrize(("overrides", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_in_words(overrides: list[str], words: list[str], tmp_path: Path) -> None:
    result = run(tmp_path / "outputs", *overrides)
    assert result.returncode != 0
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("outputs/artifacts/*/*/manifest.json"))


def test_a_file_where_the_outputs_should_go_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "artifacts").write_text("in the way")
    result = run(tmp_path / "outputs", "stage=originals")
    assert result.returncode == 1
    assert "paths.outputs" in result.stderr
    assert "Traceback" not in result.stderr
