"""stage=explore: open the page, or make the pictures of one setting without it."""

import csv
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.schema import Settings
from icm_pipeline.explore.material import Material
from icm_pipeline.explore.pictures import difference
from icm_pipeline.explore.setting import first_setting, saved_vectors
from icm_pipeline.explore.sources import opened
from icm_pipeline.explore.studio import Picture, Shown, Studio
from icm_pipeline.images.table import TABLE
from icm_pipeline.labelers.base import require
from icm_pipeline.methods.publishing import FILE_NAME

# Of explore's own settings those that say what is opened; the others are the page's to say.
OPENING = ("of", "vectors")
log = logging.getLogger(__name__)


def explore(settings: Settings, overrides: Sequence[str], models: ModelCache | None = None) -> list[Path]:
    """Open the page until it is stopped; where pictures are to be saved, do that and return their paths.

    overrides: the words of the command line, as Hydra takes them. Raises ValueError, ArtifactError or, without the
    extra, ModuleNotFoundError.
    """
    asked = settings.explore
    if asked.save is None:
        require("gradio", "explore", "The explorer's page")
    materials = opened(settings, words_to_open(overrides))
    studio = Studio(materials, models)
    if asked.save is not None:
        return save(studio, materials[0], Path(asked.save).expanduser())
    from icm_pipeline.explore.serving import serve  # with Gradio

    serve(studio, asked.host, asked.port)
    return []


def words_to_open(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the words of a command line that say what is explored, without the setting that the page begins with."""
    kept = []
    for word in overrides:
        name = word.partition("=")[0].lstrip("+")
        group, _, inner = name.partition(".")
        if name != "stage" and (group != "explore" or inner in OPENING):
            alone = re.fullmatch(r"explore\.of='?([^'=\\]+)'?", word)
            kept.append(alone[1] if alone else word.removeprefix("explore."))
    return tuple(kept)


def save(studio: Studio, material: Material, folder: Path) -> list[Path]:
    """Write the pictures and the vectors of a first setting; say what the judge sees, and return the paths.

    A table names the originals and the steered pictures, so that `images=` leaves out the differences.
    """
    setting = first_setting(material)
    shown: Shown = list(studio.show(material, setting))[-1]
    assert shown.steered is not None
    folder.mkdir(parents=True, exist_ok=True)
    pictures, rows = {}, []
    for before, after in zip(shown.originals, shown.steered, strict=True):
        pictures[f"original-{before.seed}.png"] = before.image
        pictures[f"steered-{before.seed}.png"] = after.image
        pictures[f"difference-{before.seed}.png"] = difference(before.image, after.image)
        rows += [
            (f"{name}-{picture.seed}.png", setting.prompt, picture.seed, picture.steered_to)
            for name, picture in (("original", before), ("steered", after))
        ]
        told = f"steered to {after.steered_to}" if after.steered_to else "left as it is"
        log.info("seed %d: %s, %s, then %s", before.seed, _seen(material, before), told, _seen(material, after))
    for name, picture in pictures.items():
        picture.save(folder / name, format="PNG")
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "prompt", "seed", "option"), *rows])
    saved_vectors(setting, material).save(folder / FILE_NAME)
    return [folder / name for name in (*pictures, TABLE, FILE_NAME)]


def _seen(material: Material, picture: Picture) -> str:
    if picture.probabilities is None:
        return "no judge"
    return ", ".join(f"{name} {p:.2f}" for name, p in zip(material.options, picture.probabilities, strict=True))
