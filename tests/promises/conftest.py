"""Whole runs for all tests that look at what a run leaves, each made once for all workers."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.command_line import run_afresh
from tests.helpers.settings import TINY

MadeOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> MadeOnce:
    """Give a function that makes a folder of this name once for all workers; who changes what is in it takes a copy."""
    here = tmp_path_factory.getbasetemp()
    root = here.parent if hasattr(request.config, "workerinput") else here

    def made(name: str, make: Callable[[Path], None]) -> Path:
        with FileLock(root / f"{name}.lock"):
            if not (root / name / "done").exists():
                (root / name).mkdir()
                make(root / name)
                (root / name / "done").touch()
        return root / name

    return made


@pytest.fixture(scope="session")
def finished(made_once: MadeOnce) -> Path:
    """Outputs of one complete small run, as a user makes it."""

    def make(folder: Path) -> None:
        result = run_afresh(folder / "outputs")
        assert result.returncode == 0, result.stdout + result.stderr

    return made_once("whole", make) / "outputs"


@pytest.fixture(scope="session")
def tiny_run(made_once: MadeOnce, settings_with: Callable[..., Settings]) -> Path:
    """Outputs of a run of all stages under a umask that lets the group read."""

    def make(folder: Path) -> None:
        words, before = f"paths.outputs={folder / 'outputs'}", os.umask(0o027)
        try:
            Pipeline(settings_with(*TINY, words), [], NoTracker()).run("all")
        finally:
            os.umask(before)

    return made_once("tiny", make) / "outputs"
