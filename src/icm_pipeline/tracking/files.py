"""Trackers that write plain files: CSV, and TensorBoard's event files. Nothing is written before the first value."""

import csv
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

from icm_pipeline.text import installing
from icm_pipeline.tracking.base import Tracker


class CsvTracker(Tracker):
    """`metrics.csv` (seconds since the start, name, value), a CSV file per table, pictures, pages, `lineage.csv`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = time.monotonic()

    def metrics(self, values: dict[str, float]) -> None:
        seconds = f"{time.monotonic() - self._started:.3f}"
        self._append("metrics.csv", ["seconds", "name", "value"], [[seconds, *item] for item in values.items()])

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        (self._folder / f"{_file_name(name)}.csv").unlink(missing_ok=True)
        self._append(f"{_file_name(name)}.csv", columns, rows)

    def image(self, name: str, path: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self._folder / f"{_file_name(name)}{path.suffix}")

    def page(self, name: str, path: Path) -> None:
        self.image(name, path)

    def artifact(self, stage: str, key: str, parents: dict[str, str], folder: Path) -> None:
        row = [stage, key, json.dumps(parents), str(folder.resolve())]
        self._append("lineage.csv", ["stage", "key", "parents", "folder"], [row])

    def _append(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / name
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows] if new else rows)


class TensorBoardTracker(Tracker):
    """Scalars, pictures, and tables as text, for `tensorboard --logdir`; raises ValueError if it is not installed."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            advice = f"{installing('tensorboard')}, or set tracker=csv."
            raise ValueError(f"tracker=tensorboard needs TensorBoard: {advice}") from error
        self._folder, self._config = folder, config
        self._writer: Any = None

    def _opened(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder))
            self._writer.add_text("config", f"```\n{json.dumps(self._config, indent=2)}\n```")
        return self._writer

    def metrics(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._opened().add_scalar(name, value)

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        self._opened().add_text(name, "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines))

    def image(self, name: str, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self._opened().add_image(name, np.asarray(image.convert("RGB")), dataformats="HWC")

    def artifact(self, stage: str, key: str, parents: dict[str, str], folder: Path) -> None:
        self._opened().add_text(f"lineage/{stage}", f"{key}, from {json.dumps(parents)}, in {folder.resolve()}")

    def close(self, failed: bool = False) -> None:
        if self._writer is not None:
            self._writer.add_text("state", "failed" if failed else "finished")
            self._writer.close()
            self._writer = None


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
