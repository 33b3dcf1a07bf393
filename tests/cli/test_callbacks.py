"""The folder that is a multirun's own."""

import copy
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from icm_pipeline.cli.callbacks import NoteSweep, _check_explore, _check_varied
from icm_pipeline.cli.job import main
from icm_pipeline.cli.running import RunningSweep, this_command
from icm_pipeline.config.compose import register_resolvers
from icm_pipeline.config.conf_folder import conf_path, register_schema


@pytest.fixture
def multirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Any, Path]]]:
    """Give a function from words to a multirun's configuration and the folder that it is noted with.

    All begin in one second, in a folder with an odd name.
    """
    register_schema()
    register_resolvers()
    folder = tmp_path / "it's (1), a=b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    composed = dict[tuple[str, ...], Any]()

    def begin(*words: str) -> tuple[Any, Path]:
        if words not in composed:
            composed[words] = compose("config", overrides=list(words), return_hydra_config=True)
            assert composed[words].hydra.sweep.dir  # keeps the time
        config = copy.deepcopy(composed[words])
        sweep = RunningSweep()
        before = this_command.set(sweep)
        try:
            NoteSweep().on_multirun_start(config)
        finally:
            this_command.reset(before)
        assert sweep.folder is not None
        assert "hydra" not in sweep.config
        return config, sweep.folder

    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        yield begin


def test_sweeps_that_begin_in_one_second_have_folders_of_their_own_that_every_job_sees(
    multirun: Callable[..., Any], tmp_path: Path
) -> None:
    begun = [multirun() for _ in range(3)]
    folders = [folder for _, folder in begun]
    first = folders[0]
    assert folders == [first, first.with_name(f"{first.name}-2"), first.with_name(f"{first.name}-3")]
    assert sorted(tmp_path.glob("*/multirun/*/*")) == sorted(folders)
    for config, folder in begun:
        job = GlobalHydra.instance().config_loader().load_sweep_config(config, ["alpha=2"])
        assert [Path(each.hydra.sweep.dir) for each in (config, job)] == [folder, folder]


def test_a_folder_that_the_user_gave_is_gone_on_with(multirun: Callable[..., Any], tmp_path: Path) -> None:
    words = (f"hydra.sweep.dir={tmp_path}/sweep",)
    for _ in range(2):
        assert multirun(*words)[1] == tmp_path / "sweep"
        (tmp_path / "sweep").mkdir(exist_ok=True)


def test_a_folder_that_cannot_be_made_ends_the_program_in_words(multirun: Callable[..., Any]) -> None:
    Path("multirun").write_text("in the way")
    with pytest.raises(SystemExit, match=r"error: .*multirun.*Set hydra\.sweep\.dir"):
        multirun()


def test_a_sweep_that_hydra_refused_is_not_begun(tmp_path: Path) -> None:
    assert not RunningSweep().begun
    assert not RunningSweep(tmp_path / "nowhere").begun
    assert not RunningSweep(tmp_path).begun
    (tmp_path / "multirun.yaml").touch()
    assert RunningSweep(tmp_path).begun


def test_a_worker_has_one_sweep_for_all_its_jobs_of_a_command_and_none_of_anothers() -> None:
    """Launchers pickle the function that runs a job with each job."""
    ours, anothers = (pickle.dumps(partial(main, RunningSweep(forced={"a key"}))) for _ in range(2))
    first, second = (pickle.loads(ours).args[0] for _ in range(2))
    assert first is second
    assert (first.folder, first.forced) == (None, set())
    assert pickle.loads(anothers).args[0].models is not first.models


def test_force_is_refused_where_jobs_run_at_once(multirun: Callable[..., Any]) -> None:
    multirun("force=true")
    with pytest.raises(SystemExit, match=r"error: force=true .* leave out hydra/launcher"):
        multirun("force=true", "hydra.launcher._target_=elsewhere.Launcher")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["experiment=alpha_sweep,k_sweep"],
            r"alpha_sweep,k_sweep cannot be one sweep: alpha .*=alpha_sweep",
        ),
        (["experiment=gender,k_sweep"], r"cannot be one sweep: layers\.k would be varied too"),
        (["experiment=[sd15_gender,alpha_sweep],[sd15_age,alpha_sweep]", "seed=1"], "cannot be one sweep: alpha"),
        (
            ["model=tiny,sd15", "experiment=alpha_sweep"],
            "alpha would be varied too, for each model",
        ),
        (["model=tiny,sd15", "experiment=alpha_sweep", "alpha=1,2"], None),
        (["experiment=gender,age", "model=tiny,sd15"], None),
        (["experiment=layers_ablation", "model=tiny,sd15", "alpha=1,2"], None),
    ],
)
def test_what_is_varied_for_each_choice_in_its_own_way_is_no_sweep(
    multirun: Callable[..., Any], words: list[str], said: str | None
) -> None:
    config = GlobalHydra.instance().config_loader().load_configuration("config", words, RunMode.MULTIRUN)
    if said is None:
        _check_varied(config)
    else:
        with pytest.raises(SystemExit, match=said):
            _check_varied(config)


def test_a_bench_of_a_size_that_there_is_not_is_refused_before_its_sweep(multirun: Callable[..., Any]) -> None:
    multirun("bench.size=quick")
    with pytest.raises(SystemExit, match=r"^error: bench\.size=medium is not known\. Choose one of: full, quick"):
        multirun("bench.size=medium")


@pytest.mark.parametrize(
    ("words", "is_refused"),
    [
        (["stage=explore"], True),
        (["stage=select,explore", "seed=1"], True),
        (["stage=explore", "explore.save=pictures,null"], True),
        (["stage=explore", "explore.save=one,two"], False),
        (["stage=explore", "explore.save=pictures", "explore.alpha=1,2"], False),
        (["stage=select,all"], False),
    ],
)
def test_a_page_is_no_job_of_a_sweep_and_pictures_are(
    multirun: Callable[..., Any], words: list[str], is_refused: bool
) -> None:
    config = GlobalHydra.instance().config_loader().load_configuration("config", words, RunMode.MULTIRUN)
    if not is_refused:
        _check_explore(config)
        return
    with pytest.raises(SystemExit, match=r"^error: stage=explore opens a page .* icm explore multirun/"):
        NoteSweep().on_multirun_start(config)
    assert not list(Path().rglob("multirun"))
