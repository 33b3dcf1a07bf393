"""How far long work has come: one display on the terminal, or a plain line in the log now and then.

A terminal shows what is under way with the time left, below the lines of the log, and nothing of it once it is done.
Elsewhere, as in the log file of a cluster's job, there are no carriage returns: a line a minute, none for quick work.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from icm_pipeline.text import duration_text

log = logging.getLogger(__name__)

LINE_SECONDS = 60.0
_open: list["Work"] = []  # the work under way in this process, the outermost first
_places: list[str] = []  # where in the job it stands, such as 5/9
_display: Any = None  # the rich.progress.Progress of this process while it is shown


class Work(Protocol):
    def advance(self, count: int = 1, note: str = "") -> None:
        """Say that so many more units are done; note: figures to show beside them."""


@contextmanager
def working(title: str, total: int, unit: str, done: int = 0) -> Iterator[Work]:
    """Show how far work of `total` units has come while it lasts; done: units of it that were done before."""
    title = " ".join([*_places, title])
    work = _Shown(title, total, unit, done) if on_terminal() else _Logged(title, total, unit, done, bool(_open))
    _open.append(work)
    try:
        yield work
    finally:
        _open.remove(work)
        if isinstance(work, _Shown):
            work.remove()


@contextmanager
def placed(number: int, count: int) -> Iterator[None]:
    """Within, work is shown as that of step `number` of `count`."""
    _places.append(f"{number}/{count}")
    try:
        yield
    finally:
        _places.pop()


def on_terminal() -> bool:
    return sys.__stderr__ is not None and sys.__stderr__.isatty() and os.environ.get("TERM") != "dumb"


class ConsoleHandler(logging.StreamHandler):
    """Writes log lines to its stream; above the display while there is one on the same terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        if _display is None or not self.stream.isatty():
            super().emit(record)
        else:
            _display.console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


class _Logged:
    def __init__(self, title: str, total: int, unit: str, done: int, quiet: bool) -> None:
        self._title, self._total, self._unit, self._quiet = title, total, unit, quiet
        self._before = self._done = done
        self._started = self._told = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        now, made = time.monotonic(), self._done - self._before
        if self._quiet or now - self._told < LINE_SECONDS or self._done >= self._total:
            return
        self._told = now
        left = duration_text((now - self._started) / made * (self._total - self._done))
        figures = f", {note}" if note else ""
        log.info("%s: %d of %d %ss, %s left%s", self._title, self._done, self._total, self._unit, left, figures)


class _Shown:
    def __init__(self, title: str, total: int, unit: str, done: int) -> None:
        self._task = _shown_display().add_task(title, total=total, completed=done, unit=f"{unit}s", note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        _display.update(self._task, advance=count, note=note)

    def remove(self) -> None:
        global _display
        _display.remove_task(self._task)
        if not _open:
            _display.stop()
            _display = None


def _shown_display() -> Any:
    global _display
    if _display is None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(), TextColumn("left  {task.fields[note]}"),
        )  # fmt: skip
        _display = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=2)
        _display.start()
    return _display
