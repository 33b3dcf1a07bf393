"""What Hydra calls at the start: no secret is written, and a multirun gets a folder of its own and is noted.

It is noted for its report: Hydra's callback for the end is not called when a job failed, when a report is wanted most.
"""

import copy
import sys
from collections.abc import Collection
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write

from icm_pipeline.cli.running import this_command
from icm_pipeline.config.benching import SIZES
from icm_pipeline.config.checks import check_secrets
from icm_pipeline.config.compose import quoted
from icm_pipeline.config.conf_folder import conf_path
from icm_pipeline.config.errors import ConfigError

HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class NoteSweep(Callback):
    """Note the multirun that begins, and give it a folder unless its user did.

    Ends the program if the configuration, which Hydra writes next, holds a secret.
    """

    def on_run_start(self, config: Any, **_: Any) -> None:
        _check_secrets(config)

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        _check_secrets(config)
        if config.stage == "plan":
            _plan_here(config)
        _check_explore(config)
        _check_force(config)
        _check_bench_size(config)
        _check_varied(config)
        if _sweep_dir(config) == _sweep_dir(OmegaConf.load(conf_path() / "config.yaml")):
            _take_folder(config)
        sweep = this_command.get()
        sweep.folder, sweep.config = Path(config.hydra.sweep.dir).resolve(), copy.deepcopy(config)
        with open_dict(sweep.config):
            del sweep.config["hydra"]


def _sweep_dir(config: Any) -> Any:
    """Return where a multirun's jobs go as it is written, with its references."""
    sweep: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    return sweep["dir"]


def _take_folder(config: Any) -> None:
    """Make the folder of a multirun, under another name if another multirun has it: <time>, <time>-2, <time>-3, ...

    Every launcher composes a job anew, from the parent's words for Hydra and the job's own, so it becomes one of these.
    Ends the program if it cannot be made.
    """
    wanted = Path(config.hydra.sweep.dir)
    others = (wanted.with_name(f"{wanted.name}-{number}") for number in count(2))
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for folder in chain([wanted], others):
            with suppress(FileExistsError):
                folder.mkdir()
                break
    except OSError as error:
        sys.exit(f"error: {error}. Set hydra.sweep.dir to a folder that can be written.")
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder)}")


def _plan_here(config: Any) -> None:
    """Let a planning multirun run in this process; ends the program for a search, whose jobs nobody knows yet."""
    if config.hydra.sweeper._target_ != GRID:
        sys.exit(
            "error: stage=plan cannot tell which jobs a search will draw. Plan one of them with hydra.mode=RUN: every "
            "trial makes steer, evaluate and report anew, and finds the other stages done."
        )
    with read_write(config), open_dict(config):
        config.hydra.launcher = {"_target_": HERE}


def _check_force(config: Any) -> None:
    """End the program if jobs that may run at once would each make again what they share, from under one another."""
    if config.get("force") and config.hydra.launcher._target_ != HERE:
        sys.exit(
            "error: force=true makes what jobs share once for each job where they run at once. Run one job with "
            "force=true first and the sweep without it, or leave out hydra/launcher."
        )


def _check_explore(config: Any) -> None:
    """End the program if a job would open a page: it serves until it is stopped, and the next one never begins."""
    stages, saved = _values(config, "stage"), _values(config, "explore.save")
    if "explore" in stages and not all(saved):
        sys.exit(
            "error: stage=explore opens a page until it is stopped, which no job of a sweep can. Run the sweep without "
            "it and open its folder: icm explore multirun/<date>/<time>; or give every job explore.save=<folder>, "
            "which writes pictures in a page's place."
        )


def _values(config: Any, name: str) -> list[Any]:
    """Return what a multirun gives a setting: one value, or those that it varies."""
    task = list(config.hydra.overrides.task)
    task += [f"{key}={value}" for key, value in _varied(config, {word.partition("=")[0] for word in task}).items()]
    words = OverridesParser.create().parse_overrides(task)
    varied = [word for word in words if word.get_key_element() == name and word.is_sweep_override()]
    found = [None if value == "null" else value for word in varied for value in word.sweep_string_iterator()]
    return found or [OmegaConf.select(config, name)]


def _check_bench_size(config: Any) -> None:
    """End the program for a size that no bench has: every job would be refused, one after another."""
    if (size := OmegaConf.select(config, "bench.size", default=SIZES[0])) not in SIZES:
        sys.exit(f"error: bench.size={size} is not known. Choose one of: {', '.join(SIZES)}.")


def _check_varied(config: Any) -> None:
    """End the program if what a sweep varies depends on a group that it varies too: each choice has another sweep.

    Hydra asks the command's own configuration what to vary, and no job's: of two experiments that are sweeps it would
    run neither, and of several models all with the alphas of one.
    """
    if not (task := list(config.hydra.overrides.task)):
        return
    loader = GlobalHydra.instance().config_loader()
    words = OverridesParser.create(loader).parse_overrides(task)
    fixed = [str(word.input_line) for word in words if not word.is_sweep_override()]
    given = {word.get_key_element() for word in words}  # beats what an experiment varies
    varied = _varied(config, given)
    for word in words:
        name = word.get_key_element()
        is_group = name == "experiment" or (varied and name in config.hydra.runtime.choices)
        for choice in word.sweep_string_iterator() if is_group and word.is_sweep_override() else ():
            of_choice = loader.load_configuration(config.hydra.job.config_name, [
                *config.hydra.overrides.hydra, *fixed, f"{name}={choice}"], RunMode.RUN)  # fmt: skip
            if (others := _varied(of_choice, given)) != varied:
                sys.exit(
                    f"error: {word.input_line} cannot be one sweep: {', '.join(others | varied)} would be varied too, "
                    f"for each {name} in its own way. Run one command for each: {name}={choice}, ..."
                )


def _varied(config: Any, given: Collection[str]) -> dict[str, Any]:
    """Return what a configuration itself says that a sweep varies, but for what the command line gives."""
    sweeper: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    return {name: value for name, value in (sweeper.get("params") or {}).items() if name not in given}


def _check_secrets(config: Any) -> None:
    try:
        check_secrets(OmegaConf.to_container(config, resolve=False))
    except ConfigError as error:
        sys.exit(f"error: {error}")  # Hydra makes a mere warning of an exception
