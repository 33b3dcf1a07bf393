"""Nothing read from artifacts runs, names stay in their folder, secrets are written nowhere, modes follow the umask."""

import ast
import json
import os
import pickle
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

import icm_pipeline
from icm_pipeline.cli.callbacks import NoteSweep
from icm_pipeline.cli.errors import USER_ERRORS
from icm_pipeline.cli.running import RunningSweep, this_command
from icm_pipeline.config.conf_folder import conf_path
from icm_pipeline.config.credentials import find_secret
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.store.artifacts import ArtifactError, open_artifact
from icm_pipeline.store.files import hash_file
from icm_pipeline.tracking.base import NoTracker
from icm_pipeline.zoo.weight_files import read_shapes, read_tensors
from tests.helpers.command_line import command, run
from tests.helpers.settings import TINY

Compose = Callable[..., Settings]
SOURCE = Path(icm_pipeline.__file__).parent


@pytest.fixture(scope="module")
def finished(tiny_run: Path) -> Path:
    """Outputs of a run of every stage under a umask that lets the group read."""
    return tiny_run


def pipeline_of(settings_with: Compose, outputs: Path) -> Pipeline:
    return Pipeline(settings_with(*TINY, f"paths.outputs={outputs}"), [], NoTracker())


def modes(folder: Path) -> dict[int, list[str]]:
    """Return the names of all files below a folder by their mode."""
    found: dict[int, list[str]] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found.setdefault(stat.S_IMODE(path.stat().st_mode), []).append(path.name)
    return found


def test_every_file_of_artifacts_and_caches_has_the_mode_that_the_umask_asks_for(finished: Path) -> None:
    assert {path.name for path in finished.glob("artifacts/*/.*")} >= {".judged", ".prefixes"}
    assert list(modes(finished)) == [0o640], modes(finished)
    assert {stat.S_IMODE(path.stat().st_mode) for path in finished.rglob("*") if path.is_dir()} == {0o750}


class Bomb:
    """Runs a program when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._trace}",)


def test_the_bomb_of_these_tests_goes_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("stage", "pattern", "reader"),
    [
        ("generate", "images/*.png", "label"),
        ("generate", "images.csv", "label"),
        ("generate", "recording.json", "probe"),
        ("generate", "activations/*.safetensors", "probe"),
        ("label", "labels.csv", "probe"),
        ("probe", "scores.json", "select"),
        ("probe", "vectors-*.safetensors", "steer"),
        ("select", "selection.json", "steer"),
        ("steer", "steering.json", "evaluate"),
        ("evaluate", "metrics.json", "report"),
    ],
)
def test_a_pickle_in_an_artifact_is_never_run_even_if_the_manifest_vouches_for_it(
    finished: Path, settings_with: Compose, tmp_path: Path, stage: str, pattern: str, reader: str
) -> None:
    outputs = tmp_path / "outputs"
    subprocess.run(["cp", "-r", finished, outputs], check=True)
    pipeline = pipeline_of(settings_with, outputs)
    folder = pipeline.keys.folder(stage)
    subprocess.run(["rm", "-r", outputs / "artifacts" / reader], check=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    for path in folder.glob(pattern):
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
        manifest["files"][path.relative_to(folder).as_posix()] = {
            "size": path.stat().st_size, "sha256": hash_file(path)
        }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises((*USER_ERRORS, KeyError)):
        pipeline.run(reader)
    assert not (tmp_path / "trace").exists()


def calls_of(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_no_code_of_the_package_runs_what_a_file_says() -> None:
    forbidden = {
        "eval",
        "exec",
        "pickle.load",
        "pickle.loads",
        "joblib.load",
        "yaml.load",
        "marshal.loads",
        "os.system",
    }
    for path in SOURCE.rglob("*.py"):
        for name, call in calls_of(ast.parse(path.read_text())):
            keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert name not in forbidden, f"{path}: {name}"
            assert name != "torch.load" or keywords.get("weights_only") == "True", path
            assert not {"trust_remote_code", "allow_pickle"} & {key for key, on in keywords.items() if on != "False"}, (
                path
            )
            assert name != "torch.jit.load" or path.name == "weight_files.py", path


def test_of_modules_that_unpickle_the_package_imports_an_error_only() -> None:
    unpickling = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not unpickling & {alias.name.partition(".")[0] for alias in node.names}, path
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in unpickling:
                assert {alias.name for alias in node.names} == {"UnpicklingError"}, path


@pytest.mark.parametrize("name", ["../../outside", "/outside", "sub/../../outside"])
def test_a_manifest_that_lists_a_file_outside_its_folder_is_refused(finished: Path, tmp_path: Path, name: str) -> None:
    (source,) = finished.glob("artifacts/select/*")
    folder = tmp_path / "deep" / "artifact"
    folder.parent.mkdir()
    subprocess.run(["cp", "-r", source, folder], check=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"size": 1, "sha256": "0"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="outside the folder"):
        open_artifact(folder)


def test_a_table_cannot_point_to_pictures_elsewhere(finished: Path, settings_with: Compose, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", finished, tmp_path / "outputs"], check=True)
    pipeline = pipeline_of(settings_with, tmp_path / "outputs")
    folder = pipeline.keys.folder("generate")
    table = (folder / "images.csv").read_text().replace("images/", "../../other/")
    (folder / "images.csv").write_text(table)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = {"size": len(table.encode()), "sha256": hash_file(folder / "images.csv")}
    manifest["files"]["images.csv"] = entry
    (folder / "manifest.json").write_text(json.dumps(manifest))
    subprocess.run(["rm", "-r", tmp_path / "outputs" / "artifacts" / "label"], check=True)
    with pytest.raises(ArtifactError, match="has no file"):
        pipeline.run("label")


NAMES = ["../x", "a/b", "/etc/x", "..", ".", ".hidden", "-x", "a\\b", "a b", "a\nb", "", "x" * 65]


@pytest.mark.parametrize("dotted", ["model.name", "attribute.name", "evaluate.drift.age.name"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_could_leave_the_artifacts_folder_is_refused(
    settings_with: Compose, dotted: str, name: str
) -> None:
    with pytest.raises(ConfigError, match="folder's name"):
        settings_with(f"{dotted}={json.dumps(name)}")


@pytest.mark.parametrize("name", ["sd1.5-mine", "hår_färg", "v2+lora", "x" * 64])
def test_an_ordinary_name_is_accepted_and_its_folder_lies_where_it_should(
    settings_with: Compose, tmp_path: Path, name: str
) -> None:
    settings = settings_with(f"model.name={name}", f"attribute.name={name}", f"paths.outputs={tmp_path}")
    folder = Pipeline(settings, [], NoTracker()).keys.folder("originals")
    assert folder.parent == tmp_path / "artifacts" / "originals"


WANDB_KEY, HUB_TOKEN = "0123456789abcdef" * 2 + "01234567", "hf_" + "Ab1" * 12


@pytest.mark.parametrize(
    "config",
    [
        {"model": {"call": {"api_key": "x"}}},
        {"model": {"path": f"https://hub/{HUB_TOKEN}/x"}},
        {"model": {"path": "https://me:word@hub/x"}},
        {"tracker": {"entity": WANDB_KEY}},
        {"hydra": {"job": {"env_set": {"HF_TOKEN": "x"}}}},
        {"hydra": {"overrides": {"task": [f"model.path={HUB_TOKEN}"]}}},
        {"hydra": {"overrides": {"task": ["+model.call.auth_token=x"]}}},
    ],
)
def test_a_secret_is_found_by_its_name_its_looks_or_the_environment(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", WANDB_KEY)
    where = find_secret(config)
    assert where is not None
    assert "word" not in where
    assert HUB_TOKEN not in where


def test_what_only_refers_to_a_secret_or_looks_like_one_is_none(
    settings_with: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORT_TOKEN", "tiny")
    settings_with(f"model.revision={WANDB_KEY}", "tracker.entity=tokenizers")
    assert find_secret({"hydra": {"sweeper": {"storage": "postgresql://me:${oc.env:DB_PASSWORD}@host/db"}}}) is None


@pytest.mark.parametrize("event", ["on_run_start", "on_multirun_start"])
@pytest.mark.parametrize("word", [f"+model.call.x={HUB_TOKEN}", "+hydra.job.env_set.WANDB_API_KEY=x"])
def test_a_secret_ends_the_program_before_hydra_writes_its_configuration(event: str, word: str) -> None:
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        config = compose("config", overrides=[word], return_hydra_config=True)
    sweep = RunningSweep()
    before = this_command.set(sweep)
    with pytest.raises(SystemExit, match="holds a key, token or password") as caught:
        getattr(NoteSweep(), event)(config)
    this_command.reset(before)
    assert HUB_TOKEN not in str(caught.value)
    assert sweep.folder is None


def test_a_reference_that_resolves_to_a_secret_is_refused(
    settings_with: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", WANDB_KEY)
    with pytest.raises(ConfigError, match=r"tracker\.entity holds a key") as caught:
        settings_with("tracker.entity=${oc.env:MY_TOKEN}")
    assert WANDB_KEY not in str(caught.value)


def test_a_secret_on_the_command_line_is_refused_before_it_is_written_anywhere(tmp_path: Path) -> None:
    done = run(tmp_path / "outputs", f"model.path={HUB_TOKEN}", "--multirun")
    assert done.returncode == 1
    assert "holds a key, token or password" in done.stderr
    assert "Traceback" not in done.stderr
    assert HUB_TOKEN not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def files_with(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.slow
def test_secrets_of_the_environment_are_in_no_file_that_a_tracked_job_leaves(tmp_path: Path) -> None:
    words = command(tmp_path / "outputs", "stage=originals", "evaluate.images_per_prompt=1", "model.num_steps=1")
    environment = {**os.environ, "HF_TOKEN": HUB_TOKEN, "WANDB_API_KEY": WANDB_KEY, "HOME": str(tmp_path)}
    words = [*words, "tracker=wandb"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/runs/**/*.wandb"))
    assert list(tmp_path.glob("outputs/artifacts/originals/*/manifest.json"))
    for secret in (HUB_TOKEN, WANDB_KEY):
        assert secret not in done.stdout + done.stderr
        assert files_with(tmp_path, secret) == []


def test_a_torchscript_archive_is_opened_for_a_clip_alone(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "archive.pt")
    for read in (read_tensors, read_shapes):
        with pytest.raises(ValueError, match="more than tensors"):
            read(tmp_path / "archive.pt")
    assert read_tensors(tmp_path / "archive.pt", script=True).keys() == {"weight", "bias"}
