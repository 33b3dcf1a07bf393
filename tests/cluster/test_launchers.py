"""The shipped launchers on real schedulers of one machine: SLURM's daemons and a Ray cluster. `make test-cluster`."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SLURM = Path(__file__).with_name("slurm.sh")
TINY = (
    "stage=originals", "seed=0,1", "model.num_steps=2", "method.first_step=0", "method.last_step=null",
    "evaluate.images_per_prompt=1", "tracker=none",
)  # fmt: skip

pytestmark = pytest.mark.cluster


def sweep(folder: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "icm_pipeline", "--multirun", *TINY, f"hydra.sweep.dir={folder / 'sweep'}", *words],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip


def finished_jobs(folder: Path) -> list[str]:
    """Return the artifacts of the sweep's jobs; every job must have ended well and its artifact must be there."""
    found = []
    for path in sorted(folder.glob("sweep/*/result.json")):
        result = json.loads(path.read_text())
        assert result["error"] is None
        artifact = Path(result["artifacts"]["originals"])
        assert artifact.is_relative_to(folder / "outputs")
        assert len(list(artifact.glob("images/*.png"))) == 4
        found.append(artifact.name)
    return found


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start SLURM's daemons and give the environment that its commands need."""
    if not shutil.which("slurmctld") or os.geteuid() != 0:
        pytest.skip("needs root and Debian's slurm-wlm, slurm-client and munge")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs icm_pipeline[slurm]")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    for parent in folder.parents[:3]:  # munge, another user, must be able to reach its key
        if parent.owner() == "root" and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o011)
    subprocess.run([SLURM, "start", folder], check=True, timeout=300)
    try:
        yield {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    finally:
        subprocess.run([SLURM, "stop", folder], check=True, timeout=60)


@pytest.mark.parametrize("launcher", ["slurm_gpu", "slurm_cpu"])
def test_a_sweep_runs_as_a_slurm_array(launcher: str, slurm: dict[str, str], tmp_path: Path) -> None:
    small = ("hydra.launcher.mem_gb=2", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=30")
    result = sweep(tmp_path, slurm, f"hydra/launcher={launcher}", *small)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(set(finished_jobs(tmp_path))) == 2
    script = next(tmp_path.glob("sweep/.submitit/*/*_submission.sh")).read_text()
    assert ("--gpus-per-node=1" in script) == (launcher == "slurm_gpu")
    assert "--array=0-1" in script


def test_a_job_that_fails_on_slurm_is_told_and_the_other_is_kept(slurm: dict[str, str], tmp_path: Path) -> None:
    words = ("hydra/launcher=slurm_cpu", "hydra.launcher.mem_gb=2", "hydra.launcher.cpus_per_task=1")
    result = sweep(tmp_path, slurm, *words, "stage=originals,select", "seed=0")
    assert result.returncode == 1
    assert "stage=select needs the artifact of stage=probe" in result.stderr
    errors = [json.loads(path.read_text())["error"] for path in sorted(tmp_path.glob("sweep/*/result.json"))]
    assert errors[0] is None
    assert "stage=select needs" in errors[1]


@pytest.fixture
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a Ray cluster of one node, in a folder of its own, and give its address."""
    folder = tmp_path_factory.mktemp("ray-head")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs icm_pipeline[ray]")
    address = "127.0.0.1:6390"
    ray = str(Path(sys.executable).with_name("ray"))
    words = [ray, "start", "--head", "--block", "--port=6390", "--num-cpus=2", "--include-dashboard=false"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as head:
        try:
            for _ in range(60):
                if subprocess.run([ray, "status", f"--address={address}"], capture_output=True).returncode == 0:
                    break
                assert head.poll() is None, "Ray did not start"
                time.sleep(1)
            yield address
        finally:
            head.terminate()
            head.wait(timeout=120)


def test_a_sweep_runs_on_a_ray_cluster_that_starts_elsewhere(ray_cluster: str, tmp_path: Path) -> None:
    result = sweep(tmp_path, {"RAY_ADDRESS": ray_cluster}, "hydra/launcher=ray_cpu")
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(set(finished_jobs(tmp_path))) == 2


def test_a_sweep_runs_in_processes_of_joblib(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs icm_pipeline[joblib]")
    result = sweep(tmp_path, {}, "hydra/launcher=joblib")
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(set(finished_jobs(tmp_path))) == 2
