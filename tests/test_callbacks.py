"""Which alphas a multirun of this process goes through."""

import pytest
from omegaconf import OmegaConf

from icm_pipeline.callbacks import GRID, HERE, _alphas

OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"


def alphas(words: list[str], params: dict[str, str] | None = None, sweeper: str = GRID, launcher: str = HERE) -> object:
    hydra = {
        "sweeper": {"_target_": sweeper, "params": params},
        "launcher": {"_target_": launcher},
        "overrides": {"task": words},
    }
    return _alphas(OmegaConf.create({"hydra": hydra}))


@pytest.mark.parametrize(
    ("words", "params", "found"),
    [
        (["alpha=3,5,7.5", "layers.k=2,3"], None, (3.0, 5.0, 7.5)),
        (["alpha=range(1,4)"], None, (1.0, 2.0, 3.0)),
        (["layers.k=2,3"], {"alpha": "1,2"}, (1.0, 2.0)),
        (["alpha=4"], {"alpha": "1,2"}, ()),
        (["alpha=3", "alpha=4,5"], None, (4.0, 5.0)),
        (["layers.k=2,3", "method.alpha_unit=relative,activation"], None, ()),
        (["alpha=a,b"], None, ()),
        (["alpha=interval(1,3)"], None, ()),
        (["++alpha=1,2"], None, (1.0, 2.0)),
        (["alpha=glob(*)"], None, ()),
        ([], {"alpha": "${nowhere},2"}, ()),
    ],
)
def test_the_alphas_of_a_grid_are_known(words: list[str], params: dict[str, str] | None, found: tuple) -> None:
    assert alphas(words, params) == found


def test_jobs_of_a_search_or_of_other_processes_share_nothing() -> None:
    assert alphas(["alpha=1,2"], sweeper=OPTUNA) == ()
    assert alphas(["alpha=1,2"], launcher=JOBLIB) == ()
