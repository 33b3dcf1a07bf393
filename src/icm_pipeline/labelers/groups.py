"""From a judge's own classes to an attribute's options: each option is one class or several.

A judge answers with heads, such as FairFace's `race` with seven classes. Probability of classes without an option is
dropped, not shared out, as in the published evaluation: rows then do not sum to 1.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.config.schema import LabelerConfig
from icm_pipeline.labelers.base import Questions, chosen_as

log = logging.getLogger(__name__)

Heads = dict[str, tuple[str, ...]]  # head -> its classes, in the order of its outputs
YEARS = re.compile(r"(\d+)(?:-(\d+)|\+)")  # of a head whose classes are years: "20-59", "60+"


@dataclass(frozen=True)
class OptionMap:
    """How a judge answers an attribute."""

    head: str
    members: Floats
    """1 where a class of the head is part of an option, [classes, options]."""
    dropped: tuple[str, ...]
    """Classes without an option."""


def map_options(heads: Heads, config: LabelerConfig, setting: str, attribute: str, options: Iterable[str]) -> OptionMap:
    """Find the head and classes behind an attribute's options; raises ValueError saying what the judge can tell.

    The head is the one of the attribute's name, else the only one that has all the options (so `race_7` is `race`). An
    option is made of the classes that `config.groups` lists for it, else of the class of its name, whatever the case.
    """
    wanted, groups, judge = list(options), config.groups, chosen_as(config.kind, setting)
    unknown = {
        head: [option for option in wanted if not _columns(classes, groups.get(head, {}), option)]
        for head, classes in heads.items()
    }
    fitting = [head for head in heads if not unknown[head]]
    if attribute not in heads and len(fitting) != 1:
        raise ValueError(f"{judge} cannot judge {attribute!r} with options {wanted}. {_ability(heads, groups)}")
    head = attribute if attribute in heads else fitting[0]
    if unknown[head]:
        raise ValueError(
            f"{judge} has no {attribute} {unknown[head]}. {_ability({head: heads[head]}, groups)} Say what an "
            f"option is made of: {setting}.groups.{head}.{unknown[head][0]}=[<class>,...]."
        )
    classes = heads[head]
    members = np.zeros((len(classes), len(wanted)))
    for column, option in enumerate(wanted):
        members[_columns(classes, groups.get(head, {}), option), column] = 1
    shared = [name for name, row in zip(classes, members, strict=True) if row.sum() > 1]
    if shared:
        raise ValueError(f"Options {wanted} of {attribute} share classes of {judge}: {', '.join(shared)}.")
    dropped = tuple(name for name, row in zip(classes, members, strict=True) if not row.any())
    return OptionMap(head, members, dropped)


def map_questions(heads: Heads, config: LabelerConfig, setting: str, questions: Questions) -> dict[str, OptionMap]:
    """Return `map_options` of every attribute that is asked for."""
    return {name: map_options(heads, config, setting, name, options) for name, options in questions.items()}


def answers(judge: str, maps: dict[str, OptionMap], by_head: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return each attribute's probabilities [n, options] from those of the heads [n, classes]; log what is dropped."""
    found = {}
    for attribute, mapped in maps.items():
        found[attribute] = by_head[mapped.head] @ mapped.members
        seen = found[attribute][~np.isnan(found[attribute]).any(1)]
        if mapped.dropped and len(seen):
            share = 1 - float(seen.sum(1).mean())
            names = ", ".join(mapped.dropped) if len(mapped.dropped) <= 7 else f"{len(mapped.dropped)} classes"
            log.info("%s: %.1f %% of %s is of no option and dropped (%s)", judge, 100 * share, attribute, names)
    return found


def _columns(classes: tuple[str, ...], groups: dict[str, list[str]], option: str) -> list[int]:
    """Return the classes behind an option, none if it is not known; raises ValueError if its group lists no classes."""
    if option not in groups:
        return [index for index, name in enumerate(classes) if _plain(name) == _plain(option)]
    columns: list[int] = []
    for item in groups[option]:
        found = [index for index, name in enumerate(classes) if name == item] or _years(classes, item)
        if not found:
            raise ValueError(f"Group {option!r} lists {item!r}, which is none of the classes: {_listed(classes)}.")
        columns += found
    return columns


def _years(classes: tuple[str, ...], item: str) -> list[int]:
    """Return the classes within a range of years, of a head whose classes are years."""
    matched = YEARS.fullmatch(item)
    if not matched or not all(name.isdigit() for name in classes):
        return []
    first, last = int(matched[1]), int(matched[2] or classes[-1])
    return [index for index, name in enumerate(classes) if first <= int(name) <= last]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().lower()


def _listed(classes: tuple[str, ...]) -> str:
    return ", ".join(classes) if len(classes) < 20 else f"years {classes[0]} to {classes[-1]}"


def _ability(heads: Heads, groups: dict[str, dict[str, list[str]]]) -> str:
    told = (
        f"{head} ({_listed(classes)}{'; grouped as ' + ', '.join(groups[head]) if groups.get(head) else ''})"
        for head, classes in heads.items()
    )
    return f"It can tell {'; '.join(told)}."
