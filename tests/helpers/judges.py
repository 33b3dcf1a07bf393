"""The configuration of a judge, as tests need it, and a CLIP."""

from pathlib import Path
from typing import Any

from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.clip import ClipJudge

CLIP_NAME = "icm-test-clip"


def labeler_config(kind: str, path: str | Path = "", **others: Any) -> LabelerConfig:
    plain = {"model": "", "batch_size": 2, "device": "cpu", "faces": "none", "detector": "dlib", "groups": {}}
    plain |= {"preprocess": None}
    return LabelerConfig(**plain | {"kind": kind, "path": str(path)} | others)


def clip_of(path: Path | str, model: str = CLIP_NAME, batch_size: int = 3, preprocess: str | None = None) -> ClipJudge:
    config = labeler_config("clip", path, model=model, batch_size=batch_size, preprocess=preprocess)
    return ClipJudge(config, "labeler")
