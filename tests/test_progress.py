"""Progress: one live display with the time left on a terminal, plain lines now and then in a log file."""

import logging
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from icm_pipeline import progress
from icm_pipeline.progress import placed, working
from icm_pipeline.text import duration_text

SCRIPT = """
import logging, sys, time
from icm_pipeline.progress import ConsoleHandler, placed, working
logging.basicConfig(level="INFO", format="%(message)s", handlers=[ConsoleHandler(sys.stdout)])
with placed(5, 9), working("steer", 40, "image", done=8) as work:
    for _ in range(4):
        work.advance(8)
        with working("inner", 2, "face") as inner:
            inner.advance()
            time.sleep(0.6)
        logging.info("a line of the log")
print("the table", flush=True)
"""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[float]:
    """Give a clock of one reading to be set, for work that is shown in a log."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "on_terminal", lambda: False)
    caplog.set_level(logging.INFO)
    return now


def test_a_log_has_a_line_a_minute_with_the_time_left(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with placed(2, 9), working("generate", 100, "image", done=20) as work:
        for second in range(1, 81):
            clock[0] = 2.0 * second
            work.advance(note="loss 0.5")
    assert caplog.messages == [
        "2/9 generate: 50 of 100 images, 1:40 left, loss 0.5",
        "2/9 generate: 80 of 100 images, 0:40 left, loss 0.5",
    ]


def test_quick_work_leaves_no_line(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with working("probe", 10, "layer") as work:
        for second in range(10):
            clock[0] = 5.0 * second
            work.advance()
    assert caplog.messages == []


def test_work_within_other_work_leaves_no_line(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with working("label", 2, "image"), working("faces", 10, "image") as inner:
        clock[0] = 100.0
        inner.advance()
    assert caplog.messages == []
    with working("SSIM", 10, "pair") as work:
        clock[0] = 200.0
        work.advance()
    assert caplog.messages == ["SSIM: 1 of 10 pairs, 15:00 left"]


def test_runs_in_two_threads_have_their_own_work(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """Work of another run is neither within this one's nor at its step."""

    def other() -> None:
        with working("steer", 10, "image") as work:
            clock[0] = 60.0
            work.advance()

    with placed(1, 9), working("label", 2, "image"):
        thread = threading.Thread(target=other)
        thread.start(), thread.join()
    assert caplog.messages == ["steer: 1 of 10 images, 9:00 left"]


def test_an_error_ends_the_work(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyError), placed(1, 2), working("label", 2, "image"):
        raise KeyError
    with working("steer", 3, "image") as work:
        clock[0] = 60.0
        work.advance()
    assert caplog.messages == ["steer: 1 of 3 images, 2:00 left"]


@pytest.mark.parametrize(("seconds", "text"), [(6.6, "0:07"), (750, "12:30"), (3600, "1:00:00"), (11100, "3:05:00")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_file_gets_no_carriage_returns(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        subprocess.run([sys.executable, "-c", SCRIPT], stdout=file, stderr=file, check=True, timeout=120)
    assert (tmp_path / "log").read_bytes() == b"a line of the log\n" * 4 + b"the table\n"


def test_a_terminal_shows_one_display_below_the_log_and_nothing_of_it_in_the_end() -> None:
    seen = on_a_terminal([sys.executable, "-c", SCRIPT])
    plain = re.sub(r"\x1b\[[\d;]*m", "", seen)
    assert re.search(r"5/9 steer \S+ +(16|24|32|40)/40 images \S+ left", plain)  # whichever a busy machine drew
    assert "inner" in seen
    assert "\x1b[?25h" in seen  # the cursor is shown again
    assert screen(seen) == ["a line of the log"] * 4 + ["the table"]


TWO_RUNS = """
import logging, sys, threading, time
from icm_pipeline.progress import ConsoleHandler, placed, working
logging.basicConfig(level="INFO", format="%(message)s", handlers=[ConsoleHandler(sys.stdout)])
both = threading.Barrier(2)
def run(number, seconds):
    with placed(number, 9), working("steer", 40, "image") as work:
        work.advance(10 * number)
        both.wait()
        time.sleep(seconds)
    logging.info("run %d is done", number)
other = threading.Thread(target=run, args=(2, 4.0))
other.start()
run(1, 2.0)
other.join()
"""


def test_two_runs_have_a_bar_each_on_one_terminal() -> None:
    seen = on_a_terminal([sys.executable, "-c", TWO_RUNS])
    plain = re.sub(r"\x1b\[[\d;]*[mK]", "", seen)
    assert re.search(r"1/9 steer \S+ +10/40 images [^\n]*\n[^\n]*2/9 steer \S+ +20/40 images", plain) or re.search(
        r"2/9 steer \S+ +20/40 images [^\n]*\n[^\n]*1/9 steer \S+ +10/40 images", plain
    )
    assert screen(seen) == ["run 1 is done", "run 2 is done"]


def on_a_terminal(words: list[str]) -> str:
    """Return what a program writes to a terminal of 100 columns."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "LINES": "30", "TERM": "xterm"}
    process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    seen = b""
    try:
        while part := os.read(master, 65536):
            seen += part
    except OSError:  # the program closed the terminal
        pass
    os.close(master)
    assert process.wait(120) == 0, seen
    return seen.decode()


def screen(written: str) -> list[str]:
    """Return the lines a terminal shows after it was written this, as far as a display uses its control codes."""
    lines, row = [""], 0
    for control, parameter, letter, text in re.findall(r"(\x1b\[([\d;?]*)([A-Za-z])|\r|\n)|([^\x1b\r\n]+)", written):
        if control == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif letter == "A":
            row -= int(parameter or 1)
        elif letter == "K":
            lines[row] = ""
        elif text:
            lines[row] += text
    return [line for line in lines if line.strip()]
