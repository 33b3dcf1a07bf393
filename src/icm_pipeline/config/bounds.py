"""How a field of the schema says what its values may be: one of some choices, or a number within bounds."""

import math
import operator
from dataclasses import dataclass
from typing import Any

MAY_BE = "may_be"
HOLDS = {"at least": operator.ge, "more than": operator.gt, "at most": operator.le, "less than": operator.lt}


@dataclass(frozen=True)
class Bounds:
    """Which numbers a setting may be; without any limit every finite number will do."""

    limits: dict[str, int]
    """By the words of `HOLDS`."""
    null: str | None
    """What null stands for; where it stands for nothing it is refused."""
    word: str | None = None
    """What may stand in a number's place."""
    whole: bool = False

    def admit(self, value: Any) -> bool:
        if value is None:
            return self.null is not None
        if self.word is not None and value == self.word:
            return True
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        is_finite = isinstance(value, int) or math.isfinite(value)
        return is_finite and all(HOLDS[words](value, limit) for words, limit in self.limits.items())

    def refusal(self, dotted: str, value: Any) -> str:
        said = " and ".join(f"{words} {limit}" for words, limit in self.limits.items())
        if not said or (isinstance(value, float) and not math.isfinite(value)):
            said = f"a finite number {said}".strip()
        said = f"a whole number {said}" if self.whole else said
        word = f", or {self.word}" if self.word else ""
        return f"{dotted}={value} must be {said}{word}" + (f", or null for {self.null}." if self.null else ".")


@dataclass(frozen=True)
class Choices:
    """The texts that a setting may be."""

    names: tuple[str, ...]

    def admit(self, value: str) -> bool:
        return value in self.names

    def refusal(self, dotted: str, value: Any) -> str:
        return f"{dotted}={value} is not known. Choose one of: {', '.join(self.names)}."


def number(null: str | None = None, word: str | None = None, whole: bool = False, **limits: int) -> dict[str, Any]:
    """Return the metadata of a field whose number, or each number of its mapping, stays within `Bounds`."""
    return {MAY_BE: Bounds({name.replace("_", " "): limit for name, limit in limits.items()}, null, word, whole)}


def one_of(*names: str) -> dict[str, Any]:
    return {MAY_BE: Choices(names)}


COUNT = number(at_least=1)
