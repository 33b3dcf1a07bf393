"""How a field of the schema says what its values may be: one of some choices, or a number within bounds."""

import math
from dataclasses import dataclass
from typing import Any

MAY_BE = "may_be"


@dataclass(frozen=True)
class Bounds:
    """Which numbers a setting may be; without any limit every finite number will do."""

    at_least: int | None = None
    more_than: int | None = None
    at_most: int | None = None
    less_than: int | None = None
    null: str | None = None
    """What null stands for; where it stands for nothing it is refused."""

    def admit(self, value: float | None) -> bool:
        if value is None:
            return self.null is not None
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.at_least is None or value >= self.at_least)
            and (self.more_than is None or value > self.more_than)
            and (self.at_most is None or value <= self.at_most)
            and (self.less_than is None or value < self.less_than)
        )

    def refusal(self, dotted: str, value: Any) -> str:
        limits = {name.replace("_", " "): limit for name, limit in vars(self).items() if name != "null"}
        said = " and ".join(f"{words} {limit}" for words, limit in limits.items() if limit is not None)
        return f"{dotted}={value} must be {said or 'a finite number'}" + (
            f", or null for {self.null}." if self.null else "."
        )


@dataclass(frozen=True)
class Choices:
    """The texts that a setting may be."""

    names: tuple[str, ...]

    def admit(self, value: str) -> bool:
        return value in self.names

    def refusal(self, dotted: str, value: Any) -> str:
        return f"{dotted}={value} is not known. Choose one of: {', '.join(self.names)}."


def number(**bounds: Any) -> dict[str, Any]:
    """Return the metadata of a field whose number, or each number of its mapping, stays within `Bounds`."""
    return {MAY_BE: Bounds(**bounds)}


def one_of(*names: str) -> dict[str, Any]:
    return {MAY_BE: Choices(names)}
