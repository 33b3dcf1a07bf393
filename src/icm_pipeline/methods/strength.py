"""How strongly images are steered: alpha, its unit, the window of steps. The one vessel from settings to the shift.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026.
    https://arxiv.org/abs/2604.06052
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from icm_pipeline.config.schema import Settings


@dataclass(frozen=True)
class Strength:
    """How far, in which unit and at which steps a method steers."""

    alpha: float | Sequence[float]
    """One for all images, or one for each."""
    alpha_unit: str = "activation"
    """`relative`: multiples of the layer's mean activation length at the step; `activation`: as in the paper."""
    first_step: int = 0
    last_step: int | None = None
    """The last steered step; None for the run's last."""
    num_steps: int | None = None
    """The number of steps that the window counts in; None for that of whatever run it is used in."""
    norm_preserving: bool = False
    """Whether each token gets its length back after the shift."""

    def window(self, num_steps: int) -> range:
        """Return the steered steps of a run of so many; raises ValueError if there are none."""
        counted_in = self.num_steps or num_steps
        last = counted_in - 1 if self.last_step is None else self.last_step
        inside = [step for step in range(num_steps) if self.first_step <= step * counted_in // num_steps <= last]
        if not inside:
            raise ValueError(
                f"The window of steered steps, {self.first_step} to {last} of {counted_in}, holds none of this run's "
                f"{num_steps} steps, so nothing would be steered: give a wider one."
            )
        return range(inside[0], inside[-1] + 1)


def with_strength(settings: Settings, value: float) -> Settings:
    """Return settings in which the method's strength, whichever setting that is, has a value."""
    name, method = str(settings.method.strength), settings.method
    if name == "alpha":
        return replace(settings, alpha=value)
    return replace(settings, method=replace(method, params={**method.params, name.removeprefix("params."): value}))


def checked_alpha(alpha: Any) -> float | list[float]:
    """Return an alpha as a float, or those of a sequence as a list of them; raises ValueError for what is no number.

    A number may be of any library: an array or a tensor without axes is one, with one axis a sequence of them.
    """
    plain = plain_numbers(alpha)
    numbers = [plain_numbers(each) for each in plain] if is_sequence(plain) else [plain]
    if not all(isinstance(one, Real) and not isinstance(one, bool) and math.isfinite(one) for one in numbers):
        raise ValueError(f"alpha={alpha!r} is no number: give one that is finite, or a list of them.")
    return [float(one) for one in numbers] if is_sequence(plain) else float(numbers[0])


def plain_numbers(value: Any) -> Any:
    """Return what an array or a tensor holds, as Python's own number or as lists of them; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
