"""Ctrl-C and SIGTERM: the job ends within seconds, says how to go on, and leaves what is done for the next one."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

GRACE_SECONDS = 8.0  # after which a job that does not end by itself is ended; what is on disk stands any kill
SHOW_CURSOR = "\x1b[?25h"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end."""


@contextmanager
def stopping_cleanly(words: Sequence[str]) -> Iterator[None]:
    """Within, a signal ends the process with exit code 128 + its number and the command line to go on with."""
    received: list[int] = []

    def end_at_once() -> None:
        _say(received[0], words)
        os._exit(128 + received[0])

    def stop(number: int, frame: FrameType | None) -> None:
        if received:
            end_at_once()
        received.append(number)
        watch = threading.Timer(GRACE_SECONDS, end_at_once)
        watch.daemon = True
        watch.start()
        raise Stopped

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    except BaseException:  # a library may have made another error of it
        if not received:
            raise
        _say(received[0], words)
        _silence()
        sys.exit(128 + received[0])
    finally:
        if not received:
            for number, handler in before.items():
                signal.signal(number, handler)


def _say(number: int, words: Sequence[str]) -> None:
    program = "icm" if Path(sys.argv[0]).name == "icm" else "python -m icm_pipeline"
    name = signal.Signals(number).name
    text = f"\nstopped by {name}; what is done is kept. To go on: {' '.join([program, shlex.join(words)]).strip()}\n"
    if os.isatty(2):
        text = SHOW_CURSOR + text  # a progress display hides it
    os.write(2, text.encode())  # not through a buffer that the signal may have found in use


def _silence() -> None:
    """Print no complaint of threads and generators that end with the process."""
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None
