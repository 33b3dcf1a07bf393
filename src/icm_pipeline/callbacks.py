"""What Hydra calls back at the start of a multirun: it is noted, so that its report can be made once it has ended.

Hydra's own callback for the end is not called when a job failed, and then a report is wanted most. A multirun that only
plans runs here, whatever the launcher of its jobs.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import open_dict, read_write


@dataclass(frozen=True)
class StartedSweep:
    """A multirun of this process: its folder, and the configuration that its jobs vary."""

    folder: Path
    config: Any


started: list[StartedSweep] = []

HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class NoteSweep(Callback):
    """Note the multirun that begins."""

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        folder, settings = Path(config.hydra.sweep.dir).resolve(), copy.deepcopy(config)
        with open_dict(settings):
            del settings["hydra"]
        started.append(StartedSweep(folder, settings))
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
