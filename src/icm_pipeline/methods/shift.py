"""The paper's intervention: add alpha times an option's direction to every conditional token of a layer's output.

tokens + alpha * s[l, t], with s the unit direction of the probe at layer l and step t. Every image of a batch may be
steered to an option of its own, by an alpha of its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Site
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.methods.vectors import SteeringVectors


class Shift:
    """A hook that shifts conditional tokens, of any number of batches.

    options, alpha: [n] an option index and an alpha for each of a batch's n images, or one for all, whatever n.
    `relative` alphas are multiples of the layer's mean activation length at that step. `norm_preserving` gives each
    token its length back after the shift. Steps outside first_step..last_step (inclusive, None = to the end) are left
    alone; they count in num_steps, None = in the run's own number of steps.

    A layer's shifts at all steps go to the device once, when the layer is first reached in its window; every step takes
    its own by an index. Raises ValueError in a run without a step inside the window, and for vectors of another width
    than the layer's.
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
        self._is_nothing = not self._alphas.any()
        self._per_image = {
            name: len(given) for name, given in (("options", options), ("alphas", alpha)) if isinstance(given, Sequence)
        }
        self._relative = relative
        self._first_step = first_step
        self._last_step = last_step
        self._norm_preserving = norm_preserving
        self._num_steps = num_steps
        self._slots: dict[float, int] = {}
        self._window: tuple[tuple[int, int], range] | None = None  # of a run: its number and its number of steps
        self._shifts: dict[str, Tensor] = {}

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        for name, count in self._per_image.items():
            if count != len(tokens):
                raise ValueError(f"{count} {name} were given for {len(tokens)} image(s).")
        if self._is_nothing or clock.step not in self._window_of(clock):
            return None
        moved = tokens + self._shifts_of(site.layer, tokens)[self._slot(clock.noise_level)]
        if self._norm_preserving:
            before, after = tokens.norm(dim=-1, keepdim=True), moved.norm(dim=-1, keepdim=True)
            moved = moved * (before / after.clamp_min(torch.finfo(tokens.dtype).tiny))
        return moved

    def _window_of(self, clock: StepClock) -> range:
        """Return the steps of the clock's run that are steered; raises ValueError if there are none."""
        run = (clock.run, clock.num_steps)
        if self._window is None or self._window[0] != run:
            self._window = run, self._steered_of(clock.num_steps)
        return self._window[1]

    def _steered_of(self, num_steps: int) -> range:
        counted_in = self._num_steps or num_steps
        last = counted_in - 1 if self._last_step is None else self._last_step
        inside = [step for step in range(num_steps) if self._first_step <= step * counted_in // num_steps <= last]
        if not inside:
            raise ValueError(
                f"The window of steered steps, {self._first_step} to {last} of {counted_in}, holds none of this run's "
                f"{num_steps} steps, so nothing would be steered: give a wider one."
            )
        return range(inside[0], inside[-1] + 1)

    def _slot(self, noise_level: float) -> int:
        if noise_level not in self._slots:
            self._slots[noise_level] = self._vectors.slot(noise_level)
        return self._slots[noise_level]

    def _shifts_of(self, layer: str, tokens: Tensor) -> Tensor:
        """Return the layer's shifts [slots, n, 1, d], where the tokens are and in their precision."""
        shifts = self._shifts.get(layer)
        if shifts is None or (shifts.device, shifts.dtype) != (tokens.device, tokens.dtype):
            width = self._vectors.directions[layer].shape[-1]
            if width != tokens.shape[-1]:
                raise ValueError(
                    f"The vectors of {layer} are {width} wide and its tokens {tokens.shape[-1]}: they were made on "
                    "another model."
                )
            shifts = self._computed(layer)[:, :, None].to(tokens.dtype).to(tokens.device, non_blocking=True)
            self._shifts[layer] = shifts
        return shifts

    def _computed(self, layer: str) -> Tensor:
        """Return the shift of every image at every recorded step [slots, n, d], on the CPU."""
        directions = self._vectors.directions[layer][:, self._options]
        lengths = self._alphas.double().expand(len(directions), -1)
        if self._relative:
            lengths = lengths * self._vectors.mean_norms[layer].double()[:, None]
        return lengths.to(directions.dtype)[..., None] * directions
