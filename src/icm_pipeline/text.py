"""Counts, sizes, times and near names in messages, and the article in prompts."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from rich.filesize import decimal

NAMED = 5  # images that a message names; it counts the rest


def abbreviate(names: Sequence[str]) -> str:
    """Return the first names of a list and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def number_text(value: float | None, form: str) -> str:
    """Return a number in a form, as .3f; a dash where there is none."""
    return "-" if value is None else format(value, form)


def installing(extra: str) -> str:
    """Return how an extra comes into an environment by pip, and by uv, whose environments have no pip."""
    return f"pip install 'icm_pipeline[{extra}]' (with uv, in a checkout: uv pip install -e '.[{extra}]')"


def without_shared(names: Sequence[str]) -> tuple[list[str], str]:
    """Return names without the words that all of them begin with, and those words; each keeps its last word."""
    words = [name.split(" ") for name in names]
    most = min(map(len, words), default=1) - 1
    shared = 0
    while shared < most and len({row[shared] for row in words}) == 1:
        shared += 1
    return [" ".join(row[shared:]) for row in words], " ".join(words[0][:shared]) if words else ""


def duration_text(seconds: float) -> str:
    """Return seconds as 0:07, 12:30 or 3:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def time_text(seconds: float) -> str:
    """Return seconds in one unit: 4.2 s, 35 s, 12 min or 3.1 h."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def size_text(size: float) -> str:
    """Return a number of bytes, such as `999 bytes` or `1.5 kB`."""
    return decimal(round(size))


def count_text(number: int, noun: str) -> str:
    """Return a number of things, such as `1 job` or `2 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def setting_text(value: Any) -> str:
    """Return a setting's value for reading: lists with commas, mappings with semicolons."""
    if value in ({}, []):
        return "none"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {setting_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(setting_text(inner) for inner in value)
    return "null" if value is None else str(value)


def did_you_mean(name: str, known: list[str], place: str = "") -> str:
    """Return a question after the nearest of some names, with a space before it; empty if none is near."""
    close = [other for other in known if other.lower() == name.lower()] or get_close_matches(name, known, 1)
    return f" Did you mean {place}{close[0]}?" if close else ""


def no_setting(dotted: str, name: str, known: list[str], place: str = "") -> str:
    """Return what is said of a setting that does not exist: the nearest that does, and all there are beside it.

    place: what stands before the nearest one's name, as on a command line.
    """
    return f"there is no {dotted}.{did_you_mean(name, known, place)}" + (
        f" Known here: {', '.join(known)}." if known else ""
    )


def with_article(text: str) -> str:
    """Return the text with "an" for "a" where a vowel follows."""
    return re.sub(r"\ba (?=[aeiouAEIOU])", "an ", text)
