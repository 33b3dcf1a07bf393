"""The paper's intervention: add alpha times an option's direction to every conditional token of a layer's output.

tokens + alpha * s[l, t], with s the unit direction of the probe at layer l and step t. Every image of a batch may be
steered to an option of its own, by an alpha of its own.

References:
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026,
    https://arxiv.org/abs/2604.06052
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Call, Site
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.methods.paired import check_differ
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors


class Shift:
    """A hook that shifts conditional tokens, of any number of batches.

    options: an option's index for each of a batch's images, or one for all. Steps outside of the strength's window are
    left alone. A layer's shifts at all steps go to the device once, when the layer is first reached in its window;
    every step takes its own by an index. Raises ValueError for a run that takes no step inside the window, for another
    number of options or alphas than of images, for vectors that are 0 in all layers or of another width than the
    layer's, and for a shift that is not finite.
    """

    def __init__(self, vectors: SteeringVectors, options: Sequence[int] | int, strength: Strength) -> None:
        self._vectors = vectors
        self._strength = strength
        self._options = torch.tensor(options).reshape(-1)
        self._alphas = torch.tensor(strength.alpha, dtype=torch.float64).reshape(-1)
        self._is_nothing = not self._alphas.any()
        if not self._is_nothing:
            check_differ(vectors.directions.values())
        given = {"options": options, "alphas": strength.alpha}
        self._per_image = {name: len(values) for name, values in given.items() if isinstance(values, Sequence)}
        self._slot, self._window = cache(vectors.slot), cache(strength.window)
        self._shifts: dict[str, tuple[Tensor, ...]] = {}
        self._images: tuple[int, ...] | None = None  # that the shifts are of, None for all
        self._wholes: dict[str, tuple[Tensor, ...]] = {}  # the shifts of all rows of a call
        self._layout: tuple[slice, int] | None = None  # which rows of how many they are of
        self._call: Call | None = None
        self._slot_now: int | None = None  # which of a layer's shifts belongs to the call, None for none

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        shift = self._shift(tokens, site, clock)
        if shift is None:
            return None
        return self._moved(tokens, shift) if self._strength.norm_preserving else tokens + shift

    def write_into(self, tokens: Tensor, site: Site, clock: StepClock) -> None:
        """Shift tokens in place; the numbers are those of a call, to the bit."""
        shift = self._shift(tokens, site, clock)
        if shift is None:
            return
        if self._strength.norm_preserving:
            tokens.copy_(self._moved(tokens, shift))
        else:
            tokens.add_(shift)

    @property
    def of_all_rows(self) -> Callable[[Tensor, Site, StepClock], Tensor | None] | None:
        """What shifts an output of all rows; no such way keeps a row's norm to the bit."""
        return None if self._strength.norm_preserving else self._add_to_all_rows

    def _add_to_all_rows(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        """Return tokens [b, s, d] with the conditional rows shifted: -0.0 is added to others, which changes no number.

        What is the same for all layers of a call is found out once.
        """
        if clock.call is not self._call:
            self._begin_call(clock)
        if self._slot_now is None:
            return None
        at = self._wholes.get(site.layer)
        if at is None or at[0].dtype != tokens.dtype or at[0].device != tokens.device:
            assert self._layout is not None
            rows, num_rows = self._layout
            shifts = self._shifts_of(site.layer, tokens, None)
            wholes = shifts.new_full((len(shifts), num_rows, 1, shifts.shape[-1]), -0.0)
            wholes[:, rows] = shifts
            at = self._wholes[site.layer] = wholes.unbind()
        return tokens + at[self._slot_now]

    def _begin_call(self, clock: StepClock) -> None:
        assert clock.call is not None and clock.rows is not None
        layout = clock.rows, clock.call.num_rows
        self._check_counts(len(range(*clock.rows.indices(clock.call.num_rows))))
        if layout != self._layout:
            self._layout = layout
            self._wholes.clear()
        self._call, self._slot_now = clock.call, self._slot_of(clock)

    def _check_counts(self, num_images: int) -> None:
        for name, count in self._per_image.items():
            if count != num_images:
                raise ValueError(f"{count} {name} were given for {num_images} image(s).")

    def _slot_of(self, clock: StepClock) -> int | None:
        """Return which of a layer's shifts belongs to this step, None outside of the window."""
        if self._is_nothing or clock.step not in self._window(clock.num_steps):
            return None
        return self._slot(clock.noise_level)

    def _moved(self, tokens: Tensor, shift: Tensor) -> Tensor:
        moved = tokens + shift
        before, after = tokens.norm(dim=-1, keepdim=True), moved.norm(dim=-1, keepdim=True)
        return moved * (before / after.clamp_min(torch.finfo(tokens.dtype).tiny))

    def _shift(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        """Return the layer's shift [n, 1, d] at this step; None if there is none."""
        if clock.images is None:
            self._check_counts(len(tokens))
        slot = self._slot_of(clock)
        if slot is None:
            return None
        if clock.images != self._images:
            self._images = clock.images
            self._shifts.clear()
        at = self._shifts.get(site.layer)
        if at is None or at[0].dtype != tokens.dtype or at[0].device != tokens.device:
            at = self._shifts[site.layer] = self._shifts_of(site.layer, tokens, clock.images).unbind()
        return at[slot]

    def end_run(self, clock: StepClock) -> None:
        """Raise ValueError if the run took none of the window's steps, as one that began or ended midway."""
        window = self._window(clock.num_steps)
        if not self._is_nothing and clock.ran.isdisjoint(window):
            ran = f"steps {min(clock.ran)} to {max(clock.ran)}" if clock.ran else "none"
            raise ValueError(
                f"Of {clock.num_steps} steps this run took {ran}, and none of {window.start} to {window.stop - 1}, the "
                "window of steered steps, so nothing was steered: give a wider one."
            )

    def _shifts_of(self, layer: str, tokens: Tensor, images: tuple[int, ...] | None) -> Tensor:
        """Return the layer's shifts [slots, n, 1, d], where the tokens are and in their precision."""
        width = self._vectors.directions[layer].shape[-1]
        if width != tokens.shape[-1]:
            raise ValueError(
                f"The vectors of {layer} are {width} wide and its tokens {tokens.shape[-1]}: they were made on "
                "another model."
            )
        options, alphas = (_of_images(values, images) for values in (self._options, self._alphas))
        directions = self._vectors.directions[layer][:, options]
        lengths = alphas.expand(len(directions), -1)
        if self._strength.alpha_unit == "relative":
            lengths = lengths * self._vectors.mean_norms[layer].double()[:, None]
        computed = lengths.to(directions.dtype)[..., None] * directions  # on the CPU
        shifts = computed[:, :, None].to(tokens.dtype)
        if not shifts.isfinite().all():
            raise ValueError(
                f"The shift of {layer} is NaN or infinite in {str(tokens.dtype).removeprefix('torch.')}: give a "
                "smaller alpha, other vectors, or compute in float32."
            )
        return shifts.to(tokens.device, non_blocking=True)


def _of_images(values: Tensor, images: tuple[int, ...] | None) -> Tensor:
    """Return the values of some images, None for all, where each has its own."""
    return values if images is None or len(values) == 1 else values[list(images)]
