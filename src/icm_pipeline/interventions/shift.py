"""The paper's intervention: add alpha times an option's direction to every conditional token of a layer's output.

tokens + alpha * s[l, t], with s the unit direction of the probe at layer l and step t. Every image of a batch may be
steered to an option of its own.
"""

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Site
from icm_pipeline.hooks import StepClock
from icm_pipeline.vectors import SteeringVectors


class Shift:
    """A hook that shifts conditional tokens; immutable, so one Shift serves one batch.

    options: [n] option index per image. `relative` alphas are multiples of the layer's mean activation length at that
    step. `norm_preserving` gives each token its length back after the shift. Steps outside first_step..last_step
    (inclusive, None = to the end) are left alone.
    """

    def __init__(
        self,
        vectors: SteeringVectors,
        options: list[int],
        alpha: float,
        relative: bool = False,
        first_step: int = 0,
        last_step: int | None = None,
        norm_preserving: bool = False,
    ) -> None:
        self._vectors = vectors
        self._options = torch.tensor(options)
        self._alpha = alpha
        self._relative = relative
        self._first_step = first_step
        self._last_step = last_step
        self._norm_preserving = norm_preserving

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        late = self._last_step is not None and clock.step > self._last_step
        if self._alpha == 0 or clock.step < self._first_step or late:
            return None
        shift = self._shift(site.layer, clock.step).to(tokens.device, tokens.dtype)
        moved = tokens + shift[:, None, :]
        if self._norm_preserving:
            before, after = tokens.norm(dim=-1, keepdim=True), moved.norm(dim=-1, keepdim=True)
            moved = moved * (before / after.clamp_min(torch.finfo(tokens.dtype).tiny))
        return moved

    def _shift(self, layer: str, step: int) -> Tensor:
        """Return the shift of every image [n, d] at a layer and step."""
        slot = self._vectors.slot(step)
        length = self._alpha * (float(self._vectors.mean_norms[layer][slot]) if self._relative else 1.0)
        return length * self._vectors.directions[layer][slot, self._options]
