"""Several devices of one machine: one command, a process on each, one artifact."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from icm_pipeline.pipeline import devices
from icm_pipeline.pipeline.devices import device_command, run_on_devices
from icm_pipeline.store.artifacts import ArtifactError
from tests.helpers.command_line import artifact_hashes, run

FEW = ("stage=originals", "evaluate.images_per_prompt=1", "compute.batch_size=2", "model.num_steps=2")


def test_each_process_gets_its_share_and_its_device_and_no_devices_of_its_own(tmp_path: Path) -> None:
    words = device_command("label", 1, "labeler.device", ["cuda:0", "cuda:1"], ["alpha=2", "experiment=x"], tmp_path)
    assert {"alpha=2", "experiment=x", "stage=label", "shards=2", "shard=1", "labeler.device=cuda:1"} <= set(words)
    assert {"devices=[]", "hydra.mode=RUN"} <= set(words)


def test_each_process_is_tracked_by_none(tmp_path: Path) -> None:
    words = device_command("label", 0, "labeler.device", ["cpu"], ["tracker=csv", "+tracker.tags=[a]"], tmp_path)
    assert [word for word in words if "tracker" in word] == ["tracker=none"]


@pytest.mark.parametrize("name", ["plain", "o (1)", "it's", "a,b=c", r"back\'slash", "${HOME}", "été [x]"])
def test_a_folder_of_any_name_is_read_by_hydra_as_it_is(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    word = device_command("label", 0, "labeler.device", ["cpu"], [], folder)[-1]
    value = OverridesParser.create().parse_override(word).value()
    text = OmegaConf.create({"dir": str(value)}).dir
    assert Path(text) == folder / "label-0"


def fake_process(monkeypatch: pytest.MonkeyPatch, *codes: str) -> None:
    monkeypatch.setattr(devices, "device_command", lambda stage, index, *_: [sys.executable, "-c", codes[index]])


def test_a_process_that_fails_is_named_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_process(monkeypatch, "pass", "print('before'); raise SystemExit('error: no such device')")
    with pytest.raises(ArtifactError, match=r"originals on cuda:1 .* error: no such device .*originals-1\.log"):
        run_on_devices("originals", "compute.device", ["cuda:0", "cuda:1"], [], tmp_path)


def test_of_an_error_in_several_lines_all_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_process(monkeypatch, "raise SystemExit('error: the cause' + chr(10) + 'what to do')")
    with pytest.raises(ArtifactError, match=r"code 1: error: the cause what to do \("):
        run_on_devices("originals", "compute.device", ["cuda:0"], [], tmp_path)


def test_a_stop_ends_the_processes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = f"import os, pathlib, time; pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); time.sleep(60)"
    stop = (
        f"import os, pathlib, signal, time\n"
        f"while not list(pathlib.Path({str(tmp_path)!r}).glob('[0-9]*')): time.sleep(0.01)\n"
        f"os.kill({os.getpid()}, signal.SIGINT)"
    )
    fake_process(monkeypatch, stop, note)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_on_devices("originals", "compute.device", ["a", "b"], [], tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    for path in tmp_path.glob("[0-9]*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)


@pytest.mark.slow
def test_two_processes_make_the_bytes_of_one(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    assert run(tmp_path / "one" / "outputs", *FEW).returncode == 0
    result = run(tmp_path / "two" / "outputs", *FEW, "devices=[cpu,cpu]")
    assert result.returncode == 0, result.stderr
    assert artifact_hashes(tmp_path / "two" / "outputs") == artifact_hashes(tmp_path / "one" / "outputs")
    assert not list((tmp_path / "two" / "outputs").glob("artifacts/*/*.partial"))
