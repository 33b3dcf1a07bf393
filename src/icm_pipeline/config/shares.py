"""Target shares of each prompt, from a CSV: a column `prompt` or `subject`, and one for every option."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icm_pipeline.config.errors import ConfigError

SETTING = "method.shares_table"
KEYS = ("prompt", "subject")


def read_shares(path: Path, options: Sequence[str], prompts: Sequence[str]) -> dict[str, list[float]]:
    """Return the shares of those prompts that the table names, or whose subject it names (the longest that fits).

    Blank rows and columns do not count. Raises ConfigError for a file that cannot be read, a column that it lacks or
    that is of no option, a column or a row that it has twice, a cell beyond the columns, a row of no prompt or subject,
    and a share that is no number.
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
        if len(columns) == 1 and ";" in columns[0]:
            raise ConfigError(
                f"{SETTING}={path} has one column, {columns[0]!r}: its columns are separated by semicolons. Separate "
                "them by commas, with points in numbers."
            )
        raise ConfigError(f"{SETTING}={path} lacks the column {', '.join(missing)}; it has: {', '.join(columns)}.")
    names = [(row[key] or "").strip() for row in rows]
    for what, given in (("column", [name for name in columns if name]), (key, names)):
        if repeated := [name for name, count in Counter(given).items() if count > 1]:
            raise ConfigError(
                f"{SETTING}={path} has the {what} {', '.join(map(repr, repeated))} more than once: keep one of each."
            )
    _refuse_surplus(path, rows, [*KEYS, *options])
    if "" in names:
        raise ConfigError(f"{SETTING}={path} has a row without its {key}: {', '.join(_cells(rows[names.index('')]))}.")
    table = {
        own: [_share(path, own, name, row[name]) for name in options] for own, row in zip(names, rows, strict=True)
    }
    if key == "prompt":
        return {prompt: table[prompt] for prompt in prompts if prompt in table}
    subjects = {prompt: [name for name in table if f" {name} " in f" {prompt} "] for prompt in prompts}
    return {prompt: table[max(found, key=len)] for prompt, found in subjects.items() if found}


def _refuse_surplus(path: Path, rows: Sequence[dict[Any, Any]], known: Sequence[str]) -> None:
    """Raise ConfigError for what a table says of no option: of another column, or beyond the last one."""
    columns = [name for name in (rows[0] if rows else ()) if name]
    if unknown := [name for name in columns if name not in known]:
        raise ConfigError(
            f"{SETTING}={path} has the column {', '.join(unknown)}, which is no option of the attribute. It may have: "
            f"{', '.join(known)}."
        )
    for row in rows:
        beyond = [*(row.get(None) or []), row.get("") or ""]
        if any(cell.strip() for cell in beyond):
            raise ConfigError(
                f"{SETTING}={path} has a row with more cells than named columns: {', '.join(_cells(row))}. A number "
                "with a comma in it counts as two."
            )


def _cells(row: dict[Any, Any]) -> list[str]:
    """Return the texts of a row."""
    return [text for cell in row.values() for text in (cell if isinstance(cell, list) else [cell or ""])]


def _share(path: Path, row: str, option: str, text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise ConfigError(f"{SETTING}={path}: the share of {option} for {row!r} is {text!r}, no number.") from None
