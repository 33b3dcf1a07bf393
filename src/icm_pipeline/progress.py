"""How far long work has come: a bar on the terminal, or a plain line in the log now and then.

A terminal shows what is under way with the time left, below the lines of the log, and nothing of it once it is done.
Elsewhere, as in the log file of a cluster's job, there are no carriage returns: a line a minute, none for quick work.
Runs in several threads share the terminal, where their bars stand below each other, and nothing else.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from icm_pipeline.text import duration_text

log = logging.getLogger(__name__)

LINE_SECONDS = 60.0


class Work(Protocol):
    def advance(self, count: int = 1, note: str = "") -> None:
        """Say that so many more units are done; note: figures to show beside them."""


class _Run(threading.local):
    """What the run of this thread does."""

    def __init__(self) -> None:
        self.steps: list[str] = []  # where in the run its work stands, such as 5/9
        self.under_way: list[str] = []  # titles of the work in the log, the outermost first


class _Terminal:
    lock = threading.Lock()
    display: Any = None  # a rich.progress.Progress while there are bars


_run, _terminal = _Run(), _Terminal()


@contextmanager
def working(title: str, total: int, unit: str, done: int = 0) -> Iterator[Work]:
    """Show how far work of `total` units has come while it lasts; done: units of it that were done before."""
    title, under_way = " ".join([*_run.steps, title]), _run.under_way
    if on_terminal():
        with _bar(title, total, unit, done) as bar:
            yield bar
        return
    lines = _Lines(title, total, unit, done, quiet=bool(under_way))
    under_way.append(title)
    try:
        yield lines
    finally:
        under_way.remove(title)


@contextmanager
def placed(number: int, count: int) -> Iterator[None]:
    """Within, work is shown as that of step `number` of `count`."""
    _run.steps.append(f"{number}/{count}")
    try:
        yield
    finally:
        _run.steps.pop()


def on_terminal() -> bool:
    return sys.__stderr__ is not None and sys.__stderr__.isatty() and os.environ.get("TERM") != "dumb"


class ConsoleHandler(logging.StreamHandler):
    """Writes log lines to its stream; above the bars while there are any on the same terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        display = _terminal.display
        if display is None or not self.stream.isatty():
            super().emit(record)
        else:
            display.console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


class _Lines:
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


@dataclass(frozen=True)
class _Bar:
    display: Any
    task: int

    def advance(self, count: int = 1, note: str = "") -> None:
        self.display.update(self.task, advance=count, note=note)


@contextmanager
def _bar(title: str, total: int, unit: str, done: int) -> Iterator[_Bar]:
    with _terminal.lock:
        display = _terminal.display = _terminal.display or _start_display()
        task = display.add_task(title, total=total, completed=done, unit=f"{unit}s", note="")
    try:
        yield _Bar(display, task)
    finally:
        with _terminal.lock:
            display.remove_task(task)
            if not display.tasks:
                display.stop()
                _terminal.display = None


def _start_display() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(), TextColumn("left  {task.fields[note]}"),
    )  # fmt: skip
    display = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=2)
    display.start()
    return display
