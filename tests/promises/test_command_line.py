"""Bad input on the command line: one clear message, an exit code that is not zero, nothing half-written."""

import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from tests.helpers.command_line import command, run, run_words, words_of

BAD = {
    "an unknown stage": (["stage=probes"], ["stage=probes", "steer", "evaluate"]),
    "an unknown model": (
        ["model=sdx"],
        ["there is no model=sdx. Did you mean model=sdxl? Choose from: auraflow, bria, "],
    ),
    "an unknown attribute": (["attribute=mood"], ["mood", "gender"]),
    "a word for a number": (["layers.k=two"], ["layers.k=two must be a whole number"]),
    "a word that sets nothing": (["alpha"], ["'alpha' sets nothing: write <name>=<value>"]),
    "a misspelt command": (["shw"], ["'shw' sets nothing: write <name>=<value>. Did you mean icm show?"]),
    "a misspelt group": (["layer.k=2"], ["there is no layer.k. Did you mean layers?"]),
    "a setting of another case": (["probe.c=1"], ["Did you mean probe.C?"]),
    "an alpha that is not finite": (["alpha=nan"], ["alpha=nan", "finite"]),
    "an unknown rule": (["layers.rule=best"], ["layers.rule=best", "top, worst"]),
    "a step beyond the last": (["method.first_step=6"], ["method.first_step=6", "6 steps"]),
    "an attribute with one option": (["~attribute.options.man"], ["at least two"]),
    "an empty prompt": (["attribute.evaluation_prompts=['  ']"], ["empty prompt"]),
    "no prompts": (["attribute.evaluation_prompts=[]"], ["evaluation_prompts is empty"]),
    "an unknown layer": (["layers=named", "layers.names=[mid.attn9]"], ["mid.attn9", "mid_block"]),
    "an option the judge does not know": (["+attribute.options.robot=[a robot]"], ["robot", "woman, man"]),
    "a device that is not there": (["compute.device=cuda:7"], ["compute.device=cuda:7", "compute.device=cpu"]),
    "an unknown scheduler": (["model.scheduler=best"], ["model.scheduler=best", "ddim"]),
    "an embedded model that is not there": (["model.path=embedded:huge"], ["huge", "tiny"]),
    "a folder that is no pipeline": (["stage=originals", "model.path=./nothing-here"], ["model_index.json"]),
    "a misspelt setting": (["alpah=3"], ["there is no alpah. Did you mean alpha?"]),
    "a misspelt setting of a group": (["layers.kk=3"], ["there is no layers.kk. Did you mean layers.k?"]),
    "a key that a mapping lacks": (["model.call.eta=1"], ["there is no model.call.eta yet", "+model.call.eta=<value>"]),
    "a group that is not chosen": (
        ["window=whole"],
        ["there is no window yet", "+window=<choice>, one of "],
    ),
    "a choice that a mapping lacks": (
        ["attribute@evaluate.drift.hat=glasses"],
        ["To add it: +attribute@evaluate.drift.hat=<choice>", "glasses"],
    ),
    "a group in no place": (["labeler@jude=clip"], ["there is no labeler@jude. Did you mean labeler"]),
    "a misspelt setting that is added": (["+alpah=3"], ["there is no alpah. Did you mean alpha?"]),
    "one that is added to an attribute": (
        ["+evaluate.drift.age.option=1"],
        ["Did you mean evaluate.drift.age.options?"],
    ),
    "a mapping for a list": (
        ["method.target_shares={woman:0.7,man:0.3}"],
        ["man:0.3} must be a list, as [a,b], not a mapping. One share for each of attribute.options, in their order"],
    ),
    "a list for a mapping": (
        ["attribute.options=[a,b]"],
        ["attribute.options=[a,b] must be a mapping, as {a: b}, not"],
    ),
    "a list for a group": (["probe=[a]"], ["probe=[a] must be a mapping"]),
    "several values of a single run": (["layers.k=2,3"], ["layers.k=2,3 gives several values. To run each", "=[2,3]"]),
    "several sweeps": (
        ["experiment=alpha_sweep,k_sweep"],
        ["error: experiment=alpha_sweep,k_sweep names several. Run one command for each: experiment=alpha_sweep, ..."],
    ),
    "a misspelt launcher": (
        ["--multirun", "hydra/launcher=slurm"],
        ["there is no hydra/launcher=slurm.", "slurm_... the extra slurm"],
    ),
    "a reference that is not there": (
        ["stage=generate", "evaluate.reference=/no"],
        ["evaluate.reference=/no is no folder"],
    ),
    "a second judge that is not there": (["stage=generate", "judge.path=/no"], ["judge.path=/no does not exist"]),
    "a model that is not there": (["model.path=/nonexist"], ["error: model.path=/nonexist is not a folder"]),
    "a text for a parameter": (
        ["method=linear_act", "method.params.strength=two"],
        ["method.params.strength=two must be a number; conf/method/linear_act.yaml has 1.0."],
    ),
    "judges of another world": (["model.path=my/model"], ["labeler=clip labeler@judge=clip evaluate=people"]),
}


@pytest.mark.parametrize(("overrides", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_in_words(overrides: list[str], words: list[str], tmp_path: Path) -> None:
    result = run(tmp_path / "outputs", *overrides)
    assert result.returncode != 0
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert [path for path in tmp_path.glob("outputs/artifacts/*/*") if not path.name.endswith(".lock")] == []


def test_runs_that_start_in_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    for _ in range(2):
        assert run(tmp_path / "outputs", "stage=plan").returncode == 0
    names = [folder.name for folder in tmp_path.glob("outputs/runs/*/*")]
    endings = [re.fullmatch(r"\d\d-\d\d-\d\d-([0-9a-f]{6})", name) for name in names]
    assert len({ending[1] for ending in endings if ending}) == 2


@pytest.mark.parametrize("where", ["a file", "a read-only place"])
def test_outputs_that_cannot_be_written_are_refused_in_words(tmp_path: Path, where: str) -> None:
    outputs = tmp_path / "outputs" if where == "a file" else Path("/proc/nothing/outputs")
    (tmp_path / "outputs").write_text("in the way")
    result = subprocess.run(command(outputs), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 1
    assert "error:" in result.stderr
    assert "paths.outputs" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_sweep_with_a_bad_job_does_the_others_and_ends_in_one_message(tmp_path: Path) -> None:
    result = run(tmp_path / "outputs", "stage=select,originals", "layers.k=2", "--multirun")
    assert result.returncode == 1
    assert "stage=select needs the artifact of stage=probe" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(list(tmp_path.glob("outputs/artifacts/originals/*/manifest.json"))) == 1


def test_the_error_of_a_sweeps_jobs_is_told_once(tmp_path: Path) -> None:
    result = run(tmp_path / "outputs", "model.path=/nonexist", "seed=1,2", "--multirun")
    assert result.returncode == 1
    said = result.stdout + result.stderr
    assert said.count("model.path=/nonexist is not a folder") == 1
    assert result.stderr.endswith("error: jobs of the sweep failed, as told above\n")


def test_a_sweep_of_a_stage_before_the_evaluation_is_not_told_that_it_has_no_report(tmp_path: Path) -> None:
    result = run(tmp_path / "outputs", "stage=select", "layers.k=2,3", "--multirun")
    assert "No report" not in result.stdout + result.stderr


def test_more_layers_than_there_are_is_refused_before_an_image_is_made(tmp_path: Path) -> None:
    result = run(tmp_path / "outputs", "layers.k=99")
    assert result.returncode == 1
    assert "layers.k=99 is more than the 12 self_attention layers" in result.stderr
    (log,) = tmp_path.glob("outputs/runs/*/*/icm.log")
    assert "Traceback" not in result.stdout + result.stderr
    assert "Traceback" in log.read_text()  # for whoever wants to know where it comes from
    assert not list(tmp_path.rglob("*.png"))


def test_online_tracking_without_a_login_is_refused_before_an_image_is_made(tmp_path: Path) -> None:
    words = words_of(tmp_path / "outputs", "tracker=wandb", "tracker.mode=online")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    result = run_words(words, tmp_path, environment)
    assert result.returncode == 1
    assert "tracker.mode=offline" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("*.png"))


def test_a_file_where_the_outputs_should_go_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "artifacts").write_text("in the way")
    result = run(tmp_path / "outputs", "stage=originals")
    assert result.returncode == 1
    assert "paths.outputs" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (["hydra/launcher=slurm_gpu", "--multirun"], "hydra-submitit-launcher", "slurm"),
        (["experiment=search"], "hydra-optuna-sweeper", "optuna"),
    ],
)
def test_a_launcher_or_sweeper_that_is_not_installed_is_named_with_its_extra(
    words: list[str], package: str, extra: str, tmp_path: Path
) -> None:
    if find_installed(package):
        pytest.skip(f"{package} is installed")
    result = run(tmp_path / "outputs", *words)
    assert result.returncode == 1
    assert "Config search path" not in result.stderr
    assert f"pip install 'icm_pipeline[{extra}]'" in result.stderr
    assert f"uv pip install -e '.[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr


def find_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
