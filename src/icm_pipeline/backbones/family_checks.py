"""Whether a family that somebody wrote can be one, told before it meets a pipeline."""

import re
from collections.abc import Mapping
from typing import Any

from icm_pipeline.backbones.base import BackboneError, Family
from icm_pipeline.backbones.formats import ORDERS
from icm_pipeline.backbones.guidance import LAYOUTS
from icm_pipeline.config.choices import SITE_KINDS

SIZES = ("default_size", "size_step", "largest_size", "made_size")
FUNCTIONS = ("describe", "timestep", *SIZES, "pack", "arguments", "check_run")


def check_family(family: Any) -> None:
    """Raise BackboneError for what is no family: its names, functions, patterns, layout or orders."""
    if not isinstance(family, Family):
        raise BackboneError(f"A family is a Family(name=..., ...), and this is a {type(family).__name__}.")
    if not isinstance(family.name, str) or not family.name.strip():
        raise BackboneError(f"name={family.name!r} is no name of a family: give a word, as 'mine'.")
    for field in ("pipelines", "also"):
        _check_classes(family, field)
    for field in FUNCTIONS:
        if not callable(getattr(family, field)):
            raise BackboneError(f"{family.name} has {field}={getattr(family, field)!r}, which is no function.")
    if family.rows not in LAYOUTS:
        raise BackboneError(f"{family.name} has the rows {family.rows!r}; choose from: {', '.join(LAYOUTS)}.")
    _check_sites(family)
    for order in family.orders.values():
        if order not in ORDERS:
            raise BackboneError(f"{family.name} has the tokens {order!r}; choose from: {', '.join(ORDERS)}.")
    for pattern in (*family.sites.values(), family.text, *family.orders):
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise BackboneError(f"{family.name} has {pattern!r}, which is no pattern: {error}.") from error


def _check_classes(family: Family, field: str) -> None:
    names: Any = getattr(family, field)
    if isinstance(names, str):
        raise BackboneError(f"{family.name} has {field}={names!r}, a text: write {field}=({names!r},).")
    for name in names:
        alone = name.__name__ if isinstance(name, type) else str(name).rpartition(".")[2]
        if not isinstance(name, str) or not name.isidentifier():
            raise BackboneError(f"{family.name} has {name!r} among its {field}: give the class's name, {alone!r}.")


def _check_sites(family: Family) -> None:
    if not isinstance(family.sites, Mapping) or not family.sites:
        raise BackboneError(
            f"{family.name} has sites={family.sites!r}: give a pattern of its modules' names by kind, of "
            f"{', '.join(SITE_KINDS)}."
        )
    if unknown := [kind for kind in family.sites if kind not in SITE_KINDS]:
        raise BackboneError(f"{family.name} has sites of the kind {unknown[0]!r}; choose from {', '.join(SITE_KINDS)}.")
