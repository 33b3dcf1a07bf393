"""Running methods through the pipeline's stages on the embedded model, with few and small images."""

from pathlib import Path
from typing import Protocol


class Run(Protocol):
    def __call__(self, stage: str, *words: str) -> Path:
        """Run a stage and all that it lacks, and return its artifact's folder."""


def pixels(folder: Path) -> dict[str, bytes]:
    """Return the files of an artifact's pictures by name."""
    return {path.name: path.read_bytes() for path in (folder / "images").glob("*.png")}
