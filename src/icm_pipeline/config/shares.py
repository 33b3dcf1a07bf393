"""Target shares of each prompt, from a CSV: a column `prompt` or `subject`, and one for every option."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from icm_pipeline.config.errors import ConfigError

SETTING = "method.shares_table"
KEYS = ("prompt", "subject")


def read_shares(path: Path, options: Sequence[str], prompts: Sequence[str]) -> dict[str, list[float]]:
    """Return the shares of those prompts that the table names, or whose subject it names (the longest that fits).

    Blank rows do not count. Raises ConfigError for a file that cannot be read, a column that it lacks, a column or a
    row that it has twice, and a share that is no number.
    """
    try:
        with path.expanduser().open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
            rows = [row for row in reader if any(isinstance(cell, str) and cell.strip() for cell in row.values())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{SETTING}={path} cannot be read ({error}). Give a CSV file in UTF-8.") from error
    key = next((name for name in KEYS if name in columns), None)
    missing = [*(["prompt or subject"] if key is None else []), *(name for name in options if name not in columns)]
    if key is None or missing:
        raise ConfigError(f"{SETTING}={path} lacks the column {', '.join(missing)}; it has: {', '.join(columns)}.")
    names = [(row[key] or "").strip() for row in rows]
    for what, given in (("column", [name for name in columns if name]), (key, names)):
        if repeated := [name for name, count in Counter(given).items() if count > 1]:
            raise ConfigError(
                f"{SETTING}={path} has the {what} {', '.join(map(repr, repeated))} more than once: keep one of each."
            )
    table = {
        own: [_share(path, own, name, row[name]) for name in options] for own, row in zip(names, rows, strict=True)
    }
    if key == "prompt":
        return {prompt: table[prompt] for prompt in prompts if prompt in table}
    subjects = {prompt: [name for name in table if f" {name} " in f" {prompt} "] for prompt in prompts}
    return {prompt: table[max(found, key=len)] for prompt, found in subjects.items() if found}


def _share(path: Path, row: str, option: str, text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise ConfigError(f"{SETTING}={path}: the share of {option} for {row!r} is {text!r}, no number.") from None
