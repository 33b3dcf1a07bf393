"""Images of which it is known what they show: a labelled folder, or portraits of the embedded world."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from icm_pipeline.config.choices import EMBEDDED
from icm_pipeline.config.schema import Settings
from icm_pipeline.images.folders import LABELLED, folder_of, read_images
from icm_pipeline.images.table import TABLE, ImageRow
from icm_pipeline.pretrain.world import ATTRIBUTES, draw_person
from icm_pipeline.progress import working
from icm_pipeline.store.files import written_whole
from icm_pipeline.text import count_text

log = logging.getLogger(__name__)
NUM_PORTRAITS = 400
PORTRAIT_SEED = 17  # one number, where pretraining draws each of its people from three: these are none of them


@dataclass(frozen=True)
class Labelled:
    """Images whose option is what they truly show."""

    rows: list[ImageRow]
    told: str
    """What they are, or why there are none."""


def labelled_images(settings: Settings, folder: Path) -> Labelled:
    """Return the images of audit.labelled; without it portraits drawn into a folder, where the judge is of their world.

    Images of the folder that cannot be read, or of which no option is told, are left out and counted. Raises ValueError
    for a folder in which an option of the attribute has no image.
    """
    attribute = settings.attribute
    if settings.audit.labelled is not None:
        found = read_images(settings, LABELLED)
        rows = [row for row in found if row.option and not row.problem]
        _check_options(settings, found, {row.option for row in rows})
        return Labelled(rows, f"{count_text(len(rows), 'image')} of {LABELLED}{_left_out(found)}")
    if not settings.judge.path.startswith(EMBEDDED):
        return Labelled([], f"{LABELLED} gives no folder of images that are known to show what they show.")
    if set(attribute.options) - set(ATTRIBUTES.get(attribute.name, ())):
        return Labelled([], f"The embedded world has no attribute {attribute.name!r} with these options.")
    try:
        rows = list(_portraits(attribute.name, folder / "portraits"))
    except ModuleNotFoundError as error:
        return Labelled([], str(error))
    return Labelled(rows, f"{len(rows)} portraits drawn to be of it")


def _check_options(settings: Settings, found: list[ImageRow], shown: set[str]) -> None:
    """Refuse a folder of which no option is told, or not every option. shown: those of images that can be read."""
    options, table = list(settings.attribute.options), settings.folders.table or TABLE
    where = f"{LABELLED}={settings.audit.labelled}"
    if not any(row.option for row in found):
        there = (folder_of(settings, LABELLED) / table).is_file()
        lacks = f"{table} has no column option with a name in it" if there else f"has no {table}"
        raise ValueError(
            f"{where}: {count_text(len(found), 'image')} and no word of what they show, as {'its ' if there else 'it '}"
            f"{lacks}; write one with the columns path and option, where option is {' or '.join(options)}."
        )
    if missing := [option for option in options if option not in shown]:
        raise ValueError(
            f"{where}: of {count_text(len(found), 'image')} none that can be read shows {missing[0]}; add images of "
            f"every option ({', '.join(options)}), with what they truly show in the column option of {table}."
        )


def _left_out(rows: list[ImageRow]) -> str:
    """Return how many images of a folder are not used, in words, which are logged too; nothing where all are."""
    unread, untold = sum(bool(row.problem) for row in rows), sum(not (row.problem or row.option) for row in rows)
    if not unread + untold:
        return ""
    told = f"{unread} left out that cannot be read, {untold} without an option"
    log.warning("%s: of %d images %s", LABELLED, len(rows), told)
    return f" ({told})"


def _portraits(attribute: str, folder: Path) -> Iterator[ImageRow]:
    """Yield portraits of people drawn at random, as the embedded models were trained on."""
    from icm_pipeline.pretrain.portraits import draw_portrait

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(PORTRAIT_SEED)
    people = [draw_person(rng) for _ in range(NUM_PORTRAITS)]
    with working("portraits", len(people), "image") as work:
        for index, person in enumerate(people):
            path = folder / f"{index:06d}.png"
            if not path.exists():
                with written_whole(path) as partial:
                    Image.fromarray(draw_portrait(person)).save(partial, format="PNG")
            yield ImageRow(f"{index:06d}", "", 0, None, person.option(attribute), path)
            work.advance()
