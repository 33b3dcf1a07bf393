"""The configuration of a judge, as tests need it."""

from pathlib import Path
from typing import Any

from icm_pipeline.config.schema import LabelerConfig


def labeler_config(kind: str, path: str | Path = "", **others: Any) -> LabelerConfig:
    plain = {"model": "", "batch_size": 2, "device": "cpu", "faces": "none", "detector": "dlib", "groups": {}}
    return LabelerConfig(**plain | {"kind": kind, "path": str(path)} | others)
