"""A configuration that cannot be run, and what is said of a setting that does not exist."""

from dataclasses import fields

from icm_pipeline.config.models import ComputeConfig
from icm_pipeline.text import no_setting


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what to change."""


def unknown_setting(dotted: str, name: str, known: list[str], place: str = "") -> str:
    """Return what is said of a setting that does not exist, see `no_setting`; those of `compute` were the model's."""
    if dotted.startswith("model.") and name in (each.name for each in fields(ComputeConfig)):
        return f"there is no {dotted}: set compute.{name}. A model's file keeps what it recommends under `compute:`."
    return no_setting(dotted, name, known, place)
