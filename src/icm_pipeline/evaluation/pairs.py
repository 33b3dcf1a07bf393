"""The images that an evaluation judges: the pipeline's steered images and originals, or folders from elsewhere."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icm_pipeline.config.choices import EMBEDDED
from icm_pipeline.config.schema import LabelerConfig, Settings
from icm_pipeline.evaluation.judging import check_reference
from icm_pipeline.images.folders import folder_of, read_images
from icm_pipeline.images.table import ImageRow, read_table
from icm_pipeline.labelers.base import Questions
from icm_pipeline.labelers.registry import check_labeler
from icm_pipeline.metrics.similarity import pair_by_id
from icm_pipeline.results.evaluation import Lost
from icm_pipeline.results.steering import Steering
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.text import abbreviate

log = logging.getLogger(__name__)

NO_TWIN = "no twin"


@dataclass(frozen=True)
class ImagePairs:
    """Images with their unsteered twins; an image that is missing or unreadable is a row with a problem."""

    name: str
    rows: list[ImageRow]
    twins: list[ImageRow] | None
    """The twin of each row; None if the images are judged alone."""
    judge: str
    """The group of settings of the judge: `judge` or `labeler`."""
    second: str | None
    """That of the judge that is compared with the first."""
    others: Questions
    """The other attributes that the judge is asked for."""
    steering: Steering | None
    """How the images were steered; None if unknown."""
    lost: Lost

    @property
    def sides(self) -> dict[str, list[ImageRow]]:
        """The tables to judge: `steered`, and `original` if there are twins."""
        return {"steered": self.rows} if self.twins is None else {"original": self.twins, "steered": self.rows}

    @property
    def problems(self) -> list[str]:
        """What is wrong with each image or with its twin, empty if nothing is."""
        found = [row.problem for row in self.rows]
        for index, twin in enumerate(self.twins or ()):
            found[index] = found[index] or (twin.problem if twin.problem in ("", NO_TWIN) else f"twin: {twin.problem}")
        return found


def pairs_of_pipeline(settings: Settings, steer: Artifact, originals: Artifact) -> ImagePairs:
    """Return the steered images with their originals; raises ValueError if an image has no twin."""
    rows, twins = read_table(steer), read_table(originals)
    order = pair_by_id([row.image_id for row in rows], [twin.image_id for twin in twins])
    paired, second = [twins[index] for index in order], None if are_same(settings) else "labeler"
    others, steering = other_attributes(settings), Steering.read(steer)
    return ImagePairs(settings.model.name, rows, paired, "judge", second, others, steering, Lost())


def pairs_of_folders(settings: Settings) -> ImagePairs:
    """Return the images of `images` with their twins in `reference`; problems of single images are logged.

    The labeler judges. Attributes under `evaluate.drift` that it does not know are left out, with a warning.
    """
    labeler, attribute, clip = settings.labeler, settings.attribute, settings.evaluate.clip
    check_labeler(labeler, "labeler", {attribute.name: attribute.options})
    check_reference(settings.evaluate)
    rows, name, twins = read_images(settings, "images"), folder_of(settings, "images").name, None
    unreadable: dict[str, dict[str, str] | None] = {"images": _problems(rows), "reference": None}
    asked, lost = Questions(), Lost(unreadable, [], 0, [])
    if settings.reference is not None:
        others = read_images(settings, "reference")
        twins = find_twins(rows, others)
        asked = other_attributes(settings)
        refused = {name: reason for name in asked if (reason := _refusal(labeler, {name: asked[name]}))}
        for reason in refused.values():
            log.warning("left out: %s", reason)
        asked = {name: options for name, options in asked.items() if name not in refused}
        without_twin = [row.image_id for row in twins if row.problem == NO_TWIN]
        unreadable |= {"reference": _problems(others)}
        lost = Lost(unreadable, without_twin, _unused(others, twins), list(refused))
    if _is_embedded(clip) and not _is_embedded(labeler):
        log.warning("CLIP-I and CLIP-T are of %s, which knows drawn portraits only", clip.model)
    return ImagePairs(name, rows, twins, "labeler", _second_opinion(settings), asked, None, lost)


def find_twins(rows: Sequence[ImageRow], others: Sequence[ImageRow]) -> list[ImageRow]:
    """Return the twin of each image: the one with its id, else the only one with its prompt and seed.

    An image without a twin gets a row with a problem. Raises ValueError if no image has a readable one, or if images of
    one id have different prompts or seeds.
    """
    by_id = {row.image_id: row for row in others}
    origins = Counter((row.prompt, row.seed) for row in others)
    by_origin = {(row.prompt, row.seed): row for row in others if origins[row.prompt, row.seed] == 1}
    twins = []
    for row in rows:
        same_origin = None if row.seed is None else by_origin.get((row.prompt, row.seed))
        twin = by_id.get(row.image_id) or same_origin
        if twin and (_differ(row.prompt, twin.prompt) or _differ(row.seed, twin.seed)):
            raise ValueError(
                f"Image {row.image_id!r} is of {row.prompt!r}, seed {row.seed}, but its twin of {twin.prompt!r}, seed "
                f"{twin.seed}: an id must name the same prompt and seed on both sides."
            )
        twins.append(twin or replace(row, path=Path(), problem=NO_TWIN))
    if all(twin.problem for twin in twins):
        here, there = (abbreviate([row.image_id for row in side]) for side in (rows, others))
        advice = "Twins share an id, or a prompt and seed: see folders.names."
        raise ValueError(f"No image has a readable twin: images has the ids {here}; reference has {there}. {advice}")
    if alone := [twin.image_id for twin in twins if twin.problem == NO_TWIN]:
        log.warning("images: %d of %d have no twin in the reference: %s", len(alone), len(rows), abbreviate(alone))
    if unused := _unused(others, twins):
        log.warning("reference: %d of %d images are nobody's twin and are left out", unused, len(others))
    return twins


def _differ(a: Any, b: Any) -> bool:
    return a not in ("", None) and b not in ("", None) and a != b


def _problems(rows: Sequence[ImageRow]) -> dict[str, str]:
    return {row.image_id: row.problem for row in rows if row.problem}


def _unused(others: Sequence[ImageRow], twins: Sequence[ImageRow]) -> int:
    return len({row.path for row in others} - {twin.path for twin in twins})


def other_attributes(settings: Settings) -> Questions:
    """Return what is asked of images beside the attribute."""
    attributes = {other.name: other.options for other in settings.evaluate.drift.values()}
    return {name: options for name, options in attributes.items() if name != settings.attribute.name}


def _second_opinion(settings: Settings) -> str | None:
    """Return the judge to compare the labeler with: a different one of the same domain that knows the attribute."""
    if are_same(settings) or _is_embedded(settings.labeler) != _is_embedded(settings.judge):
        return None
    if reason := _refusal(settings.judge, {settings.attribute.name: settings.attribute.options}):
        log.warning("no second judge: %s", reason)
    return None if reason else "judge"


def are_same(settings: Settings) -> bool:
    """Say whether the judge is the labeler."""
    judge = settings.judge
    return replace(settings.labeler, batch_size=judge.batch_size, device=judge.device) == judge


def _is_embedded(judge: LabelerConfig) -> bool:
    return judge.path.startswith(EMBEDDED)


def _refusal(judge: LabelerConfig, questions: Questions) -> str:
    """Return why a judge cannot answer, empty if no reason is known without loading it."""
    try:
        check_labeler(judge, "labeler", questions)
    except (ValueError, ModuleNotFoundError) as error:
        return str(error)
    return ""
