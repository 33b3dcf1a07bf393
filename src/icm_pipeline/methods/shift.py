"""The paper's intervention: add alpha times an option's direction to every conditional token of a layer's output.

tokens + alpha * s[l, t], with s the unit direction of the probe at layer l and step t. Every image of a batch may be
steered to an option of its own, by an alpha of its own.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026,
    https://arxiv.org/abs/2604.06052
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Site
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors


class Shift:
    """A hook that shifts conditional tokens, of any number of batches.

    options: an option's index for each of a batch's images, or one for all. Steps outside of the strength's window are
    left alone. A layer's shifts at all steps go to the device once, when the layer is first reached in its window;
    every step takes its own by an index. Raises ValueError in a run without a step inside the window, for another
    number of options or alphas than of images, and for vectors of another width than the layer's.
    """

    def __init__(self, vectors: SteeringVectors, options: Sequence[int] | int, strength: Strength) -> None:
        self._vectors = vectors
        self._strength = strength
        self._options = torch.tensor(options).reshape(-1)
        self._alphas = torch.tensor(strength.alpha, dtype=torch.float64).reshape(-1)
        self._is_nothing = not self._alphas.any()
        given = {"options": options, "alphas": strength.alpha}
        self._per_image = {name: len(values) for name, values in given.items() if isinstance(values, Sequence)}
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
        if self._strength.norm_preserving:
            before, after = tokens.norm(dim=-1, keepdim=True), moved.norm(dim=-1, keepdim=True)
            moved = moved * (before / after.clamp_min(torch.finfo(tokens.dtype).tiny))
        return moved

    def _window_of(self, clock: StepClock) -> range:
        run = (clock.run, clock.num_steps)
        if self._window is None or self._window[0] != run:
            self._window = run, self._strength.window(clock.num_steps)
        return self._window[1]

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
        if self._strength.alpha_unit == "relative":
            lengths = lengths * self._vectors.mean_norms[layer].double()[:, None]
        return lengths.to(directions.dtype)[..., None] * directions
