"""Commands of one process: each has what belongs to it alone."""

import logging

import pytest
from omegaconf import OmegaConf

from icm_pipeline.cli import job


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
