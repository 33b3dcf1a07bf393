"""Ctrl-C and SIGTERM: the job unwinds, says how to go on, and leaves what is done for the next one.

A second signal ends a job that does not unwind; what is on disk stands any kill.
"""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from icm_pipeline.config.choices import COMMANDS

KEEPING_NOTHING = tuple(command for command in COMMANDS if command != "explore")  # of what they have begun
SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it


@contextmanager
def stopping_cleanly(words: Sequence[str]) -> Iterator[None]:
    """Within, a signal ends the process with exit code 128 + its number and the command line to go on with.

    Commands that keep nothing of what they have begun only say that they were stopped.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt
        _tell(received[0], words)
        os._exit(128 + received[0])

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException:  # a library may have made another error of the interrupt
        if not received:
            raise
        _tell(received[0], words)
        sys.unraisablehook = lambda _: None  # no complaints of generators and threads that end with the process
        threading.excepthook = lambda _: None
        sys.exit(128 + received[0])
    finally:
        if not received:
            for number, handler in before.items():
                signal.signal(number, handler)


def _tell(number: int, words: Sequence[str]) -> None:
    program = "icm" if Path(sys.argv[0]).name == "icm" else "python -m icm_pipeline"
    name, cursor = signal.Signals(number).name, SHOW_CURSOR if os.isatty(2) else ""
    again = f"; whole stages and shards are kept. To go on: {program} {shlex.join(words)}".rstrip()
    text = f"{cursor}\nstopped by {name}{'' if words and words[0] in KEEPING_NOTHING else again}\n"
    os.write(2, text.encode())  # not through a buffer that the signal may have found in use
