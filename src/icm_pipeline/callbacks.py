"""What Hydra calls back at the start of a multirun: it is noted, so that its report can be made once it has ended.

Hydra's own callback for the end is not called when a job failed, and then a report is wanted most.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import open_dict


@dataclass(frozen=True)
class StartedSweep:
    """A multirun of this process: its folder, and the configuration that its jobs vary."""

    folder: Path
    config: Any


started: list[StartedSweep] = []


class NoteSweep(Callback):
    """Note the multirun that begins."""

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        folder, settings = Path(config.hydra.sweep.dir).resolve(), copy.deepcopy(config)
        with open_dict(settings):
            del settings["hydra"]
        started.append(StartedSweep(folder, settings))
