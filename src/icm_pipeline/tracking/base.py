"""What a tracker is."""

from pathlib import Path
from typing import Any


class Tracker:
    """Where figures, tables and pictures of a run go."""

    def metrics(self, values: dict[str, float]) -> None:
        """Log scalars under stable names such as `fd/mean`."""

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Log a table."""

    def image(self, name: str, path: Path) -> None:
        """Log a picture file."""

    def page(self, name: str, path: Path) -> None:
        """Log a page: an HTML file that needs no other."""

    def artifact(self, stage: str, key: str, parents: dict[str, str], folder: Path) -> None:
        """Log that the run made or used a stage's artifact; parents: {stage: key} of what it was made from."""

    def close(self, failed: bool = False) -> None:
        """Finish the run, as failed or not; the tracker cannot be used afterwards."""


class NoTracker(Tracker):
    """Keeps nothing."""
