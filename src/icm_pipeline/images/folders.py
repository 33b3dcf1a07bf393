"""Folders of images that any tool made, as tables: from a CSV file beside the images, or by a rule over their names.

What is wrong with single images is told and counted, and their rows stay; what is wrong with the folder as a whole
raises ValueError.
"""

import csv
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from icm_pipeline.config.schema import Settings
from icm_pipeline.config.values import value_at
from icm_pipeline.images.naming_rules import compile_rule, read_name
from icm_pipeline.images.pictures import is_picture, problem_of
from icm_pipeline.images.table import TABLE, ImageRow
from icm_pipeline.machine.threads import single_threaded
from icm_pipeline.progress import working
from icm_pipeline.store.files import hash_file
from icm_pipeline.store.fingerprints import make_key
from icm_pipeline.text import abbreviate, count_text

LABELLED = "audit.labelled"  # whose options are what images truly show, not what they were steered to
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderReading:
    """How a folder is read."""

    folder: Path
    setting: str
    """The setting that gave it, for messages."""
    table: str | None
    """The CSV file's name in it; None for `images.csv` if it is there."""
    names: Sequence[str]
    """Naming rules for where there is no table."""
    prompts: Sequence[str]
    """What a prompt_index counts in."""
    options: Sequence[str]
    """What an image can have been steered to, or of audit.labelled can show."""

    @property
    def where(self) -> str:
        return f"{self.setting}={self.folder}"


@dataclass(frozen=True)
class FolderTable:
    """The images of a folder."""

    rows: list[ImageRow]
    left_out: list[str]
    """Pictures in the folder that are none of them."""
    reason: str
    """Why they are left out."""
    others: list[str]
    """Files beside them that Pillow does not read, where no table says which are meant."""


def folder_of(settings: Settings, setting: str) -> Path:
    """Return the folder that `images` or `reference` gives."""
    return Path(str(value_at(settings, setting))).expanduser().resolve()


def list_images(settings: Settings, setting: str) -> FolderTable:
    """Return the images of the folder that `images` or `reference` gives, unopened."""
    folders, attribute, folder = settings.folders, settings.attribute, folder_of(settings, setting)
    prompts, options = attribute.evaluation_prompts, list(attribute.options)
    return read_folder(FolderReading(folder, setting, folders.table, folders.names, prompts, options))


def read_images(settings: Settings, setting: str) -> list[ImageRow]:
    """Return the images of the folder that `images` or `reference` gives, those that cannot be read marked."""
    table = list_images(settings, setting)
    if table.left_out:
        left_out = f"{len(table.left_out)} pictures left out, {table.reason}: {abbreviate(table.left_out)}"
        log.warning("%s: %s", setting, left_out)
    tell_others(setting, table.others)
    return mark_unreadable(table.rows, setting)


def read_folder(reading: FolderReading) -> FolderTable:
    """Return the table of a folder's images, unopened, in the order of its CSV file or of the names.

    Without table and rule an image's id is its path without the suffix, and neither prompt nor seed is known. Raises
    ValueError for a folder without pictures, a table that cannot be used, and two images with one id.
    """
    folder = reading.folder
    if not folder.is_dir():
        raise ValueError(f"{reading.where} is no folder. Give a folder of images.")
    pictures, others = list_pictures(folder)
    table = folder / (reading.table or TABLE)
    if table.is_file():
        found = _from_table(table, pictures, reading)
    elif reading.table:
        raise ValueError(f"{reading.where} has no table {reading.table} (folders.table).")
    else:
        found = _from_names(pictures, others, reading)
    _check_ids(reading, found.rows)
    _check_options(reading, found.rows)
    return found


def list_pictures(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return every picture below a folder by its path from there, and the paths of the files that are none.

    Hidden files and folders are left out.
    """
    named = {  # as text that can be written, also where a name is no UTF-8
        os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace"): path
        for path in folder.rglob("*")
        if path.is_file() or (path.is_symlink() and not path.exists())  # which points to nothing
    }
    seen = sorted(name for name in named if not any(part.startswith(".") for part in name.split("/")))
    pictures = {name: named[name] for name in seen if is_picture(named[name])}
    return pictures, [name for name in seen if name not in pictures]


def tell_others(setting: str, others: Sequence[str]) -> None:
    """Name and count the files of a folder that Pillow does not read."""
    if others:
        log.warning("%s: %s", setting, _not_read(others))


def no_picture(where: str, others: Sequence[str]) -> ValueError:
    found = f"; {_not_read(others)}" if others else ""
    return ValueError(f"{where} holds no picture that Pillow reads, such as .png or .jpg{found}.")


def _not_read(others: Sequence[str]) -> str:
    return f"{count_text(len(others), 'other file')} left out, which Pillow does not read: {abbreviate(others)}"


def content_key(rows: Sequence[ImageRow]) -> str:
    """Return a hash of what the images are and of every file's bytes, wherever the folder lies."""
    known = [[row.image_id, row.prompt, row.seed, row.option] for row in rows]
    return make_key([known, list(single_threaded(_digest, [row.path for row in rows]))])


def mark_unreadable(rows: Sequence[ImageRow], setting: str) -> list[ImageRow]:
    """Open every picture and return the rows, with the reason where one cannot be read; ValueError if none can."""
    marked = []
    with working(f"read {setting}", len(rows), "image") as work:
        for row, problem in zip(rows, single_threaded(problem_of, [row.path for row in rows]), strict=True):
            marked.append(replace(row, problem=problem))
            work.advance()
    lost = [f"{row.path} ({row.problem})" for row in marked if row.problem]
    if len(lost) == len(marked):
        raise ValueError(f"{setting}: none of the {len(marked)} images can be read, {abbreviate(lost)}.")
    if lost:
        log.warning("%s: %d of %d images cannot be read: %s", setting, len(lost), len(marked), abbreviate(lost))
    return marked


def _digest(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        return type(error).__name__


def _from_names(pictures: dict[str, Path], others: list[str], reading: FolderReading) -> FolderTable:
    if not pictures:
        raise no_picture(reading.where, others)
    stems = {name: name.removesuffix(path.suffix) for name, path in pictures.items()}
    if not reading.names:
        return FolderTable(
            [_row(stem, {}, pictures[name], reading, name) for name, stem in stems.items()], [], "", others
        )
    patterns = [compile_rule(rule) for rule in reading.names]
    fields = {name: read_name(stem, patterns) for name, stem in stems.items()}
    unfit = [name for name, found in fields.items() if found is None]
    if len(unfit) == len(fields):
        raise ValueError(f"{reading.where}: no name fits folders.names={list(reading.names)}, such as {unfit[0]}.")
    rows = [_row(stems[name], found, pictures[name], reading, name) for name, found in fields.items() if found]
    return FolderTable(rows, unfit, "no rule fits their names", others)


def _from_table(table: Path, pictures: dict[str, Path], reading: FolderReading) -> FolderTable:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            columns = lines.fieldnames or []
            entries = [{name: (value or "").strip() for name, value in line.items() if name} for line in lines]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read as a CSV file in UTF-8: {error}") from error
    if not {"id", "path"} & set(columns):
        other = "" if reading.table else ", or folders.table= another one"
        raise ValueError(f"{table} has the columns {', '.join(columns)}; it needs id or path{other}.")
    if not entries:
        raise ValueError(f"{table} has no rows.")
    stems = {name.removesuffix(path.suffix): path for name, path in pictures.items()}
    folder, rows = reading.folder, []
    for number, entry in enumerate(entries, start=2):
        name, where = entry.get("path", ""), f"{table}, row {number}"
        if not name and not entry.get("id"):
            raise ValueError(f"{where} has neither id nor path.")
        path = folder / name if name else stems.get(entry["id"], folder / entry["id"])
        stem = name.removesuffix(Path(name).suffix) if name else entry["id"]
        rows.append(_row(stem, entry, path, reading, where))
    listed = {row.path for row in rows}
    return FolderTable(
        rows, [name for name, path in pictures.items() if path not in listed], f"not in {table.name}", []
    )


def _row(stem: str, fields: dict[str, str], path: Path, reading: FolderReading, where: str) -> ImageRow:
    index = _number(fields.get("prompt_index", ""), "prompt_index", where)
    prompt = fields.get("prompt", "")
    if not prompt and index is not None:
        if index >= len(reading.prompts):
            raise ValueError(
                f"{where}: prompt_index {index} is none of the {len(reading.prompts)} evaluation prompts of the "
                "attribute, which count from 0."
            )
        prompt = reading.prompts[index]
    seed = _number(fields.get("seed", ""), "seed", where)
    return ImageRow(fields.get("id") or stem, prompt, index or 0, seed, fields.get("option", ""), path)


def _number(text: str, name: str, where: str) -> int | None:
    if text and not text.isdecimal():
        raise ValueError(f"{where}: {name} {text!r} is no whole number.")
    return int(text) if text else None


def _check_ids(reading: FolderReading, rows: Sequence[ImageRow]) -> None:
    counts = Counter(row.image_id for row in rows)
    repeated = [image_id for image_id, count in counts.items() if count > 1]
    if repeated:
        files = abbreviate([row.path.name for row in rows if row.image_id == repeated[0]])
        shared = f"{len(repeated)} id(s) that several images share: {abbreviate(repeated)} ({files})"
        raise ValueError(f"{reading.where} has {shared}. Give a table with a column id.")


def _check_options(reading: FolderReading, rows: Sequence[ImageRow]) -> None:
    unknown = Counter(row.option for row in rows if row.option and row.option not in reading.options)
    if unknown:
        found = abbreviate([f"{option} ({count} images)" for option, count in unknown.items()])
        known = ", ".join(reading.options)
        if reading.setting == LABELLED:
            raise ValueError(
                f"{reading.where} has images that show {found}, which the attribute does not have; name what each "
                f"shows as the attribute does ({known}), or leave it empty."
            )
        raise ValueError(
            f"{reading.where} has images steered to {found}; the attribute has {known}. Set attribute= to the one they "
            "were steered in."
        )
