"""Settings by their dotted names, as plain data."""

from copy import deepcopy
from dataclasses import asdict, is_dataclass
from typing import Any

from icm_pipeline.config.schema import Settings


def value_at(settings: Settings, dotted: str) -> Any:
    """Return a value or a whole group (as plain data) by its dotted name."""
    value: Any = settings
    for part in dotted.split("."):
        value = value[part] if isinstance(value, dict) else vars(value)[part]
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return a copy without dataclasses."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else deepcopy(value)
