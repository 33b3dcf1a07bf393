"""The shipped launchers compose with the resources that their stages need; tests/cluster runs them."""

from collections.abc import Callable
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from icm_pipeline.config.conf_folder import conf_path, register_schema

PLUGINS = {"slurm": "hydra_submitit_launcher", "ray": "hydra_ray_launcher", "joblib": "hydra_joblib_launcher"}


@pytest.fixture
def launcher_of() -> Callable[..., Any]:
    """Give a function from a launcher's name and further words to its composed settings."""

    def composed(name: str, *words: str) -> Any:
        plugin = PLUGINS[name.split("_")[0]]
        pytest.importorskip(f"hydra_plugins.{plugin}", reason="needs icm_pipeline[slurm,ray,joblib]")
        register_schema()
        with initialize_config_dir(str(conf_path()), version_base="1.3"):
            overrides = [f"hydra/launcher={name}", *words]
            return compose("config", overrides=overrides, return_hydra_config=True).hydra.launcher

    return composed


@pytest.mark.parametrize(("name", "gpus", "memory"), [("slurm_gpu", 1, 48), ("slurm_cpu", None, 32)])
def test_slurm_jobs_ask_for_a_gpu_or_for_none(
    launcher_of: Callable[..., Any], name: str, gpus: int | None, memory: int
) -> None:
    launcher = launcher_of(name)
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.gpus_per_node, launcher.mem_gb, launcher.cpus_per_task) == (gpus, memory, 8)
    assert launcher.max_num_timeout == 3
    assert launcher_of(name, "hydra.launcher.mem_gb=80", "hydra.launcher.partition=a100").mem_gb == 80


@pytest.mark.parametrize(("name", "gpus", "cpus"), [("ray_gpu", 1, 4), ("ray_cpu", 0, 1)])
def test_ray_jobs_ask_for_a_gpu_or_for_none(launcher_of: Callable[..., Any], name: str, gpus: int, cpus: int) -> None:
    launcher = launcher_of(name)
    assert launcher._target_.endswith("RayLauncher")
    assert (launcher.ray.remote.num_gpus, launcher.ray.remote.num_cpus) == (gpus, cpus)
    assert launcher.ray.init.object_store_memory is None


def test_joblib_runs_as_many_jobs_as_it_is_told(launcher_of: Callable[..., Any]) -> None:
    assert launcher_of("joblib", "hydra.launcher.n_jobs=2").n_jobs == 2
