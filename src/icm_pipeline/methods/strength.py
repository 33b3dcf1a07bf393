"""How strongly images are steered: alpha, its unit, the window of steps. The one vessel from settings to the shift.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026.
    https://arxiv.org/abs/2604.06052
"""

from collections.abc import Sequence
from dataclasses import dataclass


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
