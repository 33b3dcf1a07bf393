"""The wheel holds all it needs: configuration and weights inside, and it runs from any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.command_line import SMALL

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_wheel_runs_from_any_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(CHECKOUT)]
    subprocess.run(build, check=True, timeout=600)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        entry = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "icm_pipeline/report/html/templates/report.js" in archive.namelist()
        explorer = {"page.css", "shipped/tiny-gender/vectors.safetensors"}
        assert {f"icm_pipeline/explore/{name}" for name in explorer} <= set(archive.namelist())
        assert "icm = icm_pipeline.__main__:run" in archive.read(entry).decode()
    (tmp_path / "elsewhere").mkdir()
    command = [sys.executable, "-P", "-m", "icm_pipeline", "stage=originals", *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [*command, "hydra.verbose=false"], cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "elsewhere").glob("outputs/artifacts/originals/*/images/*.png"))) == 16
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import icm_pipeline; print(icm_pipeline.__file__)"], env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(tmp_path / "site"))
