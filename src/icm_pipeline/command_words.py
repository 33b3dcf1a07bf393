"""The words of a command line that say which configuration it composes, for commands made from it."""

import json
import re
from pathlib import Path
from typing import Any

from icm_pipeline.config import conf_path

CONFIG_NAME = "config"
FILE = "file://"


def config_words(hydra: Any) -> list[str]:
    """Return what names the folders and the file of a composed configuration, as far as they are not the package's own.

    hydra: Hydra's own part of the configuration. Options stand before overrides, as Hydra's parser wants them.
    """
    words = []
    for source in hydra.runtime.config_sources:
        path = source.path.removeprefix(FILE)
        if source.provider == "main" and Path(path).resolve() != conf_path():
            words.append(f"--config-path={path}")
        elif source.provider == "command-line":
            words.append(f"--config-dir={path}")
    if hydra.job.config_name not in (None, CONFIG_NAME):
        words.append(f"--config-name={hydra.job.config_name}")
    if hydra.searchpath:
        words.append(f"hydra.searchpath={json.dumps(list(hydra.searchpath), ensure_ascii=False)}")
    return words


def quoted(path: Path) -> str:
    """Return a path as Hydra's grammar reads it, whatever its characters.

    Backslashes stand for themselves but before a quote or a reference, where they are doubled.
    """
    text = re.sub(r"(\\*)('|\$\{)", r"\1\1\\\2", str(path))
    at_the_end = len(text) - len(text.rstrip("\\"))
    return f"'{text}{at_the_end * chr(92)}'"
