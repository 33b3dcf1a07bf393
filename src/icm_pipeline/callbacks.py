"""What Hydra calls back at the start: secrets are refused, and a multirun is noted for its report once it has ended.

Hydra's own callback for the end is not called when a job failed, and then a report is wanted most. A multirun that only
plans runs here, whatever the launcher of its jobs.
"""

import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from icm_pipeline.validation import ConfigError, refuse_secrets


@dataclass(frozen=True)
class StartedSweep:
    """A multirun of this process: its folder, and the configuration that its jobs vary.

    alphas: of a grid whose jobs run here one after the other; none for other multiruns.
    """

    folder: Path
    config: Any
    alphas: tuple[float, ...] = ()


started: list[StartedSweep] = []

HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class NoteSweep(Callback):
    """Note the multirun that begins; end the program if the configuration, which Hydra writes next, holds a secret."""

    def on_run_start(self, config: Any, **_: Any) -> None:
        _refuse_secrets(config)

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        _refuse_secrets(config)
        folder, settings = Path(config.hydra.sweep.dir).resolve(), copy.deepcopy(config)
        with open_dict(settings):
            del settings["hydra"]
        started.append(StartedSweep(folder, settings, _alphas(config)))
        if settings.stage == "plan":
            _plan_here(config)


def _plan_here(config: Any) -> None:
    """Let a planning multirun run in this process; ends the program for a search, whose jobs nobody knows yet."""
    if config.hydra.sweeper._target_ != GRID:
        raise SystemExit(
            "error: stage=plan cannot tell which jobs a search will draw. Plan one of them with hydra.mode=RUN: every "
            "trial makes steer, evaluate and report anew, and finds the other stages done."
        )
    with read_write(config), open_dict(config):
        config.hydra.launcher = {"_target_": HERE}


def _alphas(config: Any) -> tuple[float, ...]:
    """Return the alphas of a multirun, as Hydra's own sweeper will read them, if its jobs run here one after another.

    Words that are wrong give none: the jobs tell what is wrong with them.
    """
    sweeper = config.hydra.sweeper
    if (sweeper._target_, config.hydra.launcher._target_) != (GRID, HERE):
        return ()
    alphas: tuple[float, ...] = ()
    try:
        words = [*(f"{key}={value}" for key, value in (sweeper.params or {}).items()), *config.hydra.overrides.task]
        for override in OverridesParser.create().parse_overrides(words):
            if override.key_or_group == "alpha":  # the last one counts
                values = override.sweep_string_iterator() if override.is_discrete_sweep() else ()
                alphas = tuple(float(value) for value in values)
    except (ValueError, HydraException, OmegaConfBaseException):
        return ()
    return alphas


def _refuse_secrets(config: Any) -> None:
    try:
        refuse_secrets(OmegaConf.to_container(config, resolve=False))
    except ConfigError as error:
        sys.exit(f"error: {error}")  # Hydra makes a mere warning of an exception
