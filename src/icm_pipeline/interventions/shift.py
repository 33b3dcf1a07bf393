"""The paper's intervention: add alpha times an option's direction to every conditional token of a layer's output.

tokens + alpha * s[l, t], with s the unit direction of the probe at layer l and step t. Every image of a batch may be
steered to an option of its own, by an alpha of its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Site
from icm_pipeline.hooks import StepClock
from icm_pipeline.vectors import SteeringVectors


class Shift:
    """A hook that shifts conditional tokens; immutable, so one Shift serves one batch.

    options, alpha: [n] an option index and an alpha per image, or one for all. `relative` alphas are multiples of the
    layer's mean activation length at that step. `norm_preserving` gives each token its length back after the shift.
    Steps outside first_step..last_step (inclusive, None = to the end) are left alone; they count in num_steps, None =
    in the run's own number of steps.
    """

    def __init__(
        self,
        vectors: SteeringVectors,
        options: list[int] | int,
        alpha: float | Sequence[float],
        relative: bool = False,
        first_step: int = 0,
        last_step: int | None = None,
        norm_preserving: bool = False,
        num_steps: int | None = None,
    ) -> None:
        self._vectors = vectors
        self._options = torch.tensor(options).reshape(-1)
        self._alphas = torch.tensor(alpha, dtype=torch.float64).reshape(-1)
        self._per_image = {
            name: len(given) for name, given in (("options", options), ("alphas", alpha)) if isinstance(given, Sequence)
        }
        self._relative = relative
        self._first_step = first_step
        self._last_step = last_step
        self._norm_preserving = norm_preserving
        self._num_steps = num_steps

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        for name, count in self._per_image.items():
            if count != len(tokens):
                raise ValueError(f"{count} {name} were given for {len(tokens)} image(s).")
        if not self._alphas.any() or not self._is_due(clock):
            return None
        shift = self._shift(site.layer, clock.noise_level).to(tokens.device, tokens.dtype)
        moved = tokens + shift[:, None, :]
        if self._norm_preserving:
            before, after = tokens.norm(dim=-1, keepdim=True), moved.norm(dim=-1, keepdim=True)
            moved = moved * (before / after.clamp_min(torch.finfo(tokens.dtype).tiny))
        return moved

    def _is_due(self, clock: StepClock) -> bool:
        step = clock.step if self._num_steps is None else clock.step * self._num_steps // clock.num_steps
        return step >= self._first_step and (self._last_step is None or step <= self._last_step)

    def _shift(self, layer: str, noise_level: float) -> Tensor:
        """Return the shift of every image [n, d] at a layer and noise level."""
        slot = self._vectors.slot(noise_level)
        lengths = self._alphas * (float(self._vectors.mean_norms[layer][slot]) if self._relative else 1.0)
        directions = self._vectors.directions[layer][slot, self._options]
        return lengths[:, None].to(directions) * directions
