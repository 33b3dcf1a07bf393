"""One whole run for all tests that look at what a run leaves."""

from pathlib import Path

import pytest
from filelock import FileLock

from tests.helpers.command_line import run_afresh


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Outputs of one complete small run, made once for all workers; a test that changes them takes a copy."""
    here = tmp_path_factory.getbasetemp()
    root = here.parent if hasattr(request.config, "workerinput") else here
    outputs, done = root / "whole" / "outputs", root / "whole" / "done"
    with FileLock(root / "whole.lock"):
        if not done.exists():
            outputs.parent.mkdir()
            result = run_afresh(outputs)
            assert result.returncode == 0, result.stdout + result.stderr
            done.touch()
    return outputs
