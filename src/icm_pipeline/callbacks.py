"""What Hydra calls back at the start: secrets are refused, and a multirun is noted for its report once it has ended.

Hydra's own callback for the end is not called when a job failed, and then a report is wanted most.
"""

import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import OmegaConf, open_dict

from icm_pipeline.validation import ConfigError, refuse_secrets


@dataclass(frozen=True)
class StartedSweep:
    """A multirun of this process: its folder, and the configuration that its jobs vary."""

    folder: Path
    config: Any


started: list[StartedSweep] = []


class NoteSweep(Callback):
    """Note the multirun that begins; end the program if the configuration, which Hydra writes next, holds a secret."""

    def on_run_start(self, config: Any, **_: Any) -> None:
        _refuse_secrets(config)

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        _refuse_secrets(config)
        folder, settings = Path(config.hydra.sweep.dir).resolve(), copy.deepcopy(config)
        with open_dict(settings):
            del settings["hydra"]
        started.append(StartedSweep(folder, settings))


def _refuse_secrets(config: Any) -> None:
    try:
        refuse_secrets(OmegaConf.to_container(config, resolve=False))
    except ConfigError as error:
        sys.exit(f"error: {error}")  # Hydra makes a mere warning of an exception
