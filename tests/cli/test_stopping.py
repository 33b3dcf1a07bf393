"""SIGINT and SIGTERM: the process ends with its code, says how to go on and shows no traceback."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from icm_pipeline.cli import stopping
from tests.helpers.command_line import command, words_of
from tests.helpers.command_line import started as job_started

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
BODIES = {
    "a plain wait": "wait()",
    "a library that makes another error of it": (
        "try:\n        wait()\n    except BaseException as error:\n        raise ImportError('no') from error"
    ),
}
SWALLOWED = """try:
        print("at work", flush=True)
        wait()
    except BaseException:
        print("swallowed", flush=True)
    wait()"""
SCRIPT = """
import sys, time
from icm_pipeline.cli.stopping import stopping_cleanly

def wait():  # one long sleep would sleep on if the signal came just before it began
    for _ in range(6000):
        time.sleep(0.01)

with stopping_cleanly(["stage=all", "attribute.options.man=[a man]"]):
    print("ready", flush=True)
    {body}
"""


def started(body: str) -> subprocess.Popen[str]:
    """Start a process with a body within `stopping_cleanly`, and wait until it is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_signal_ends_the_process_and_says_how_to_go_on(number: signal.Signals, code: int, body: str) -> None:
    process = started(body)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"stopped by {number.name}" in errors
    assert "stage=all 'attribute.options.man=[a man]'" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("words", [["check-model", "FluxPipeline"], ["models"], ["gc"]])
def test_a_command_that_keeps_nothing_only_says_that_it_was_stopped(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    stopping._tell(signal.SIGINT, words)
    assert capfd.readouterr().err == "\nstopped by SIGINT\n"
    stopping._tell(signal.SIGINT, [])
    assert "whole stages and shards are kept. To go on: " in capfd.readouterr().err


def test_a_second_signal_ends_a_job_that_swallows_the_first() -> None:
    process = started(SWALLOWED)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "swallowed\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped by SIGINT; whole stages and shards are kept. To go on:" in errors
    assert "Traceback" not in errors


def test_without_a_signal_errors_and_exit_codes_pass_through() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body="sys.exit(7)")], capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (7, b"")


LONG = ("stage=originals", "compute.batch_size=2", "evaluate.images_per_prompt=200")


def wait_for(sign: str, outputs: Path, is_running: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not list(outputs.glob(sign)):
        assert is_running()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_stopped(outputs: Path, text: str) -> None:
    assert "whole stages and shards are kept. To go on: python -m icm_pipeline" in text
    assert "Traceback" not in text
    assert not list(outputs.glob("artifacts/originals/*/manifest.json"))


def test_a_job_stopped_while_it_imports_says_how_to_go_on_and_leaves_nothing(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(command(outputs, *LONG), cwd=tmp_path, stdout=errors, stderr=errors)
        wait_for("runs/**/icm.log", outputs, lambda: process.poll() is None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    check_stopped(outputs, (tmp_path / "errors").read_text())
    assert not list(outputs.glob("artifacts/originals/*.partial"))


def test_a_job_stopped_by_a_signal_keeps_what_is_done(tmp_path: Path) -> None:
    outputs, errors = tmp_path / "outputs", tmp_path / "errors"
    process = job_started(words_of(outputs, *LONG), tmp_path, Path(os.devnull), errors)
    wait_for("artifacts/originals/*.partial/images/*.png", outputs, process.is_alive)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    check_stopped(outputs, errors.read_text())
    assert list(outputs.glob("artifacts/originals/*.partial"))
