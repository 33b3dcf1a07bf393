"""Pooled activations: the mean over image tokens of a layer's output, for the conditional half, at recorded steps.

The paper's section on probing; buffers live on the device and leave it once per batch.
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


class Recorder:
    """A hook that pools the tokens of one batch and changes nothing.

    A step in which the denoiser runs more than once (Heun, PNDM) keeps its last call.
    """

    def __init__(self, steps: list[int]) -> None:
        self._slots = {step: slot for slot, step in enumerate(steps)}
        self._levels: list[float | None] = [None] * len(steps)
        self._kinds: dict[str, str] = {}
        self._sums: dict[str, Tensor] = {}  # over a layer's tokens [T, n, d]
        self._sums_at: dict[str, tuple[Tensor, ...]] = {}  # views of the same, one per slot
        self._num_tokens: dict[str, list[int]] = {}  # of a layer, one per slot
        self._calls: dict[str, int] = {}  # the last call that a layer was reached in
        self._means: dict[str, Tensor] = {}  # what has left the device [n, T, d]

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> None:
        slot = self._slots.get(clock.step)
        if slot is None:
            return
        at = self._sums_at.get(site.layer)
        if at is None:
            n, _, d = tokens.shape
            self._num_tokens[site.layer] = [0] * len(self._slots)
            self._sums[site.layer] = torch.full((len(self._slots), n, d), float("nan"), device=tokens.device)
            at = self._sums_at[site.layer] = self._sums[site.layer].unbind()
            self._kinds[site.layer] = site.kind
        self._levels[slot] = clock.noise_level
        seen = tokens.detach() if tokens.requires_grad else tokens
        if self._calls.get(site.layer) == clock.num_calls:  # a further piece, as of forward chunking
            at[slot].add_(seen.sum(dim=1, dtype=torch.float32))
            self._num_tokens[site.layer][slot] += tokens.shape[1]
            return
        torch.sum(seen, dim=1, dtype=torch.float32, out=at[slot])
        self._num_tokens[site.layer][slot] = tokens.shape[1]
        self._calls[site.layer] = clock.num_calls

    def keep(self, steps: Container[int]) -> None:
        """Leave out all other steps."""
        self._slots = {step: slot for step, slot in self._slots.items() if step in steps}

    @property
    def unreached(self) -> list[int]:
        """The steps that no layer was reached in."""
        return [step for step, slot in self._slots.items() if self._levels[slot] is None]

    def leave_device(self) -> None:
        """Divide by the number of tokens and bring what was recorded to the CPU, all layers of a device in one copy."""
        by_device: dict[torch.device, list[str]] = {}
        for layer, sums in self._sums.items():
            by_device.setdefault(sums.device, []).append(layer)
        for device, layers in by_device.items():
            means = [(self._sums.pop(layer) / self._counts(layer, device)).transpose(0, 1) for layer in layers]
            if device.type == "cpu":
                parts = [mean.contiguous() for mean in means]
            else:
                copied = torch.cat([mean.flatten() for mean in means]).cpu()
                pieces = copied.split([mean.numel() for mean in means])
                parts = [piece.view(mean.shape).clone() for piece, mean in zip(pieces, means, strict=True)]
            self._means.update(zip(layers, parts, strict=True))
        self._sums_at.clear()

    def _counts(self, layer: str, device: torch.device) -> int | Tensor:
        """Return a layer's number of tokens, or [T, 1, 1] where it differs from step to step."""
        counts = self._num_tokens[layer]
        reached = set(counts) - {0}
        return reached.pop() if len(reached) == 1 else torch.tensor(counts, device=device)[:, None, None]

    def recording(self) -> Recording:
        """Return what was recorded; raises ValueError for a step never reached, FloatingPointError for NaN or inf."""
        if self.unreached:
            raise ValueError(
                f"Of the recorded steps {sorted(self._slots)} the run never reached {self.unreached}: it began midway, "
                "was cut short or has fewer steps."
            )
        self.leave_device()
        slots = list(self._slots.values())
        activations = {layer: self._means[layer] for layer in self._kinds}
        if len(slots) < len(self._levels):
            activations = {layer: means[:, slots] for layer, means in activations.items()}
        for layer, means in activations.items():
            if not means.isfinite().all():
                raise FloatingPointError(
                    f"The activations of {layer} are not finite, or it was not reached at every recorded step. Compute "
                    "in bfloat16 or float32 (compute.dtype)."
                )
        levels = [level for level in self._levels if level is not None]
        return Recording(dict(self._kinds), list(self._slots), levels, activations)


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
