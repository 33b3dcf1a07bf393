"""Pooled activations: the mean over image tokens of a layer's output, for the conditional half, at recorded steps.

The paper's section on probing; or whole maps, every token of an image in a row. Buffers live on the device and
leave it once per batch.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Site
from icm_pipeline.hooks.clock import StepClock


@dataclass(frozen=True)
class RecordedAt:
    """Where activations were recorded."""

    kinds: dict[str, str]
    """{layer: site kind}."""
    steps: list[int]
    """The T recorded steps."""
    noise_levels: list[float]
    """Of the T recorded steps."""


@dataclass(frozen=True)
class Recording(RecordedAt):
    """What was recorded of one batch."""

    activations: dict[str, Tensor]
    """{layer: [n, T, d]} in float32 on the CPU, in the network's order."""


class _Sums:
    """The sums of a layer's tokens [n, d] at each recorded step, and of how many."""

    __slots__ = ("call", "kind", "num_tokens", "rows", "sums")

    def __init__(self, kind: str, num_steps: int) -> None:
        self.kind = kind
        self.sums: list[Tensor | None] = [None] * num_steps
        self.rows: list[slice | None] = [None] * num_steps  # which of them count, None for all
        self.num_tokens = [1] * num_steps
        self.call = -1  # the last one that the layer was reached in

    def means(self) -> Tensor:
        """Return the means [n, T, d], NaN at a step that the layer was not reached in."""
        found = [self.at(slot) for slot in range(len(self.sums))]
        first = next(each for each in found if each is not None)
        missing = torch.full_like(first, float("nan"))
        sums = torch.stack([missing if each is None else each for each in found], dim=1)
        same = len(set(self.num_tokens)) == 1
        return sums / (self.num_tokens[0] if same else torch.tensor(self.num_tokens, device=sums.device)[:, None])

    def at(self, slot: int) -> Tensor | None:
        """Return the sums at a recorded step, None where there are none."""
        sums, rows = self.sums[slot], self.rows[slot]
        return sums if sums is None or rows is None else sums[rows]


class Recorder:
    """A hook that pools the tokens of one batch and changes nothing; whole: keep all tokens [n, s * d] instead.

    A step in which the denoiser runs more than once (Heun, PNDM) keeps its last call.
    """

    def __init__(self, steps: list[int], whole: bool = False) -> None:
        self._whole = whole
        self._slots = {step: slot for slot, step in enumerate(steps)}
        self._levels: list[float | None] = [None] * len(steps)
        self._layers: dict[str, _Sums] = {}
        self._means: dict[str, Tensor] = {}  # what has left the device [n, T, d]

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> None:
        slot = self._slots.get(clock.step)
        if slot is None:
            return
        kept = self._layers.get(site.layer)
        if kept is None:
            kept = self._layers[site.layer] = _Sums(site.kind, len(self._slots))
        seen = tokens.detach() if tokens.requires_grad else tokens
        pooled, count, call = seen.sum(1, dtype=torch.float32), tokens.shape[1], clock.num_calls
        if self._whole:
            pooled, count = seen.flatten(1).float(), 1
        if clock.images is not None:  # a step made again for some images: of the others stays what was seen
            seen_before = kept.at(slot)
            assert seen_before is not None
            others = torch.zeros_like(seen_before) if kept.call == call else seen_before
            pooled = others.index_copy(0, torch.tensor(clock.images, device=others.device), pooled)
        if kept.call == call:  # a further piece, as of forward chunking
            pooled, count = pooled + kept.at(slot), count + kept.num_tokens[slot]  # type: ignore[operator]
        kept.sums[slot], kept.rows[slot], kept.num_tokens[slot], kept.call = pooled, None, count, call
        self._levels[slot] = clock.noise_level

    def of_all_rows(self, tokens: Tensor, site: Site, clock: StepClock) -> None:
        """Pool all rows of a small output [b, s, d]; which of them count is looked at when they leave the device."""
        slot, call = self._slots.get(clock.step), clock.num_calls
        if slot is None:
            return
        kept = self._layers.get(site.layer)
        if kept is None or kept.call == call or self._whole:
            self(tokens[clock.rows], site, clock)
            return
        seen = tokens.detach() if tokens.requires_grad else tokens
        kept.sums[slot], kept.rows[slot] = seen.sum(1, dtype=torch.float32), clock.rows
        kept.num_tokens[slot], kept.call = tokens.shape[1], call
        self._levels[slot] = clock.noise_level

    @property
    def steps(self) -> list[int]:
        """The steps that are recorded."""
        return list(self._slots)

    def keep(self, steps: Container[int]) -> None:
        """Leave out all other steps."""
        self._slots = {step: slot for step, slot in self._slots.items() if step in steps}

    @property
    def unreached(self) -> list[int]:
        """The steps that no layer was reached in."""
        return [step for step, slot in self._slots.items() if self._levels[slot] is None]

    def leave_device(self) -> None:
        """Bring what was recorded to the CPU, all layers of a device in one copy."""
        by_device: dict[torch.device, dict[str, Tensor]] = {}
        for layer, kept in self._layers.items():
            if layer not in self._means:
                means = kept.means()
                by_device.setdefault(means.device, {})[layer] = means
                kept.sums.clear()
        for device, means_of in by_device.items():
            parts = list(means_of.values())
            if device.type != "cpu":
                pieces = torch.cat([means.flatten() for means in parts]).cpu().split([m.numel() for m in parts])
                parts = [piece.view(means.shape) for piece, means in zip(pieces, parts, strict=True)]
            self._means.update(zip(means_of, (part.clone() for part in parts), strict=True))

    def recording(self) -> Recording:
        """Return what was recorded; raises ValueError for a step never reached, FloatingPointError for NaN or inf."""
        if self.unreached:
            raise ValueError(
                f"Of the recorded steps {sorted(self._slots)} the run never reached {self.unreached}: it began midway, "
                "was cut short or has fewer steps."
            )
        self.leave_device()
        slots = list(self._slots.values())
        activations = {layer: self._means[layer] for layer in self._layers}
        if len(slots) < len(self._levels):
            activations = {layer: means[:, slots] for layer, means in activations.items()}
        for layer, means in activations.items():
            if not means.isfinite().all():
                raise FloatingPointError(
                    f"The activations of {layer} are not finite, or it was not reached at every recorded step. Compute "
                    "in bfloat16 or float32 (compute.dtype)."
                )
        levels = [level for level in self._levels if level is not None]
        kinds = {layer: kept.kind for layer, kept in self._layers.items()}
        return Recording(kinds, list(self._slots), levels, activations)


class Recorded:
    """The hook behind `record`, and what it saw: every call of the pipeline has a Recorder of its own."""

    def __init__(self, steps: Sequence[int] | None) -> None:
        self._steps = steps
        self._recorders: list[Recorder] = []
        self._whole: dict[int, Recording] = {}
        self._run: int | None = None

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> None:
        if clock.run != self._run:
            self._begin(clock)
        self._recorders[-1](tokens, site, clock)

    def of_all_rows(self, tokens: Tensor, site: Site, clock: StepClock) -> None:
        if clock.run != self._run:
            self._begin(clock)
        self._recorders[-1].of_all_rows(tokens, site, clock)

    def _begin(self, clock: StepClock) -> None:
        """Begin to record another call; raises ValueError for steps that it does not have."""
        self.leave_device()
        steps = range(clock.num_steps) if self._steps is None else self._steps
        beyond = [step for step in steps if step >= clock.num_steps]
        if beyond:
            raise ValueError(
                f"steps={list(steps)}: this run has {clock.num_steps} steps, counted from 0; not {beyond}."
            )
        self._recorders.append(Recorder(list(steps)))
        self._run = clock.run

    def end_run(self, clock: StepClock) -> None:
        """Where every step is asked for, these are the steps that the run took: it may begin and end midway."""
        if self._steps is None and self._run == clock.run:
            self._recorders[-1].keep(clock.ran)

    def leave_device(self) -> None:
        """Bring what was recorded of the last call to the CPU."""
        for recorder in self._recorders[-1:]:
            recorder.leave_device()

    @property
    def recordings(self) -> list[Recording]:
        """One for each call that reached every step.

        Raises ValueError if calls were recorded and none did, FloatingPointError for numbers that are not finite.
        """
        for index, recorder in enumerate(self._recorders):
            if index not in self._whole and not recorder.unreached:
                self._whole[index] = recorder.recording()
        if self._recorders and not self._whole:
            self._recorders[-1].recording()  # raises
        return [self._whole[index] for index in sorted(self._whole)]

    @property
    def cut_short(self) -> int:
        """How many calls did not reach every step, as one that was interrupted."""
        return sum(bool(recorder.unreached) for recorder in self._recorders)
