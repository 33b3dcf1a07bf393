"""Commands of one process: each has what belongs to it alone."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from omegaconf import OmegaConf

from icm_pipeline.cli import job
from icm_pipeline.config.schema import Settings


def test_two_commands_of_one_process_write_to_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as `run` sets it; put back afterwards
    monkeypatch.setattr(logging, "raiseExceptions", True)
    id_of_folder = OmegaConf.create({"id": "${run_id:}", "again": "${run_id:}"})
    monkeypatch.setattr(
        job.hydra, "main", lambda **_: lambda task: lambda: ids.append((id_of_folder.id, id_of_folder.again))
    )
    job.run()
    job.run()
    assert len(ids) == 2 and ids[0] != ids[1]
    assert all(first == again for first, again in ids)


def test_a_command_without_words_says_what_it_begins(
    settings_with: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        job.tell_what_begins(settings_with("paths.outputs=/data"))
    assert [record.getMessage() for record in caplog.records] == [
        "stage=all on tiny into /data; --help lists the commands"
    ]


def test_the_version_is_told_of_what_decides_a_picture_without_importing_it() -> None:
    program = (
        "import sys; from icm_pipeline.__main__ import run; sys.argv[1:] = ['--version']; run(); "
        "assert not {'torch', 'diffusers', 'hydra'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"icm_pipeline \S.*, torch \d\S+, diffusers \d\S+, transformers \d\S+, numpy .*\n", done.stdout)
