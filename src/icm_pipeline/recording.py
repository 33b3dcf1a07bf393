"""Pooled activations: the mean over image tokens of a layer's output, for the conditional half, at recorded steps.

The paper's section on probing; buffers live on the device and leave it once per batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Site
from icm_pipeline.hooks import StepClock


@dataclass(frozen=True)
class Recording:
    """What one batch recorded.

    activations: {layer: [n, T, d]} in float32 on the CPU, in the network's order; kinds: {layer: site kind}; steps and
    noise_levels: of the T recorded steps.
    """

    activations: dict[str, Tensor]
    kinds: dict[str, str]
    steps: list[int]
    noise_levels: list[float]


class Recorder:
    """A hook that pools what it sees and changes nothing; one Recorder per batch.

    A step in which the denoiser runs more than once (Heun, PNDM) keeps its last call.
    """

    def __init__(self, steps: list[int]) -> None:
        self._slots = {step: slot for slot, step in enumerate(steps)}
        self._levels = [0.0] * len(steps)
        self._kinds: dict[str, str] = {}
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> None:
        slot = self._slots.get(clock.step)
        if slot is None:
            return
        buffer = self._buffers.get(site.layer)
        if buffer is None:
            n, _, d = tokens.shape
            buffer = torch.full((n, len(self._slots), d), float("nan"), device=tokens.device)
            self._buffers[site.layer] = buffer
            self._kinds[site.layer] = site.kind
        self._levels[slot] = clock.noise_level
        torch.mean(tokens.detach(), dim=1, dtype=torch.float32, out=buffer[:, slot])

    def leave_device(self) -> None:
        """Bring what was recorded to the CPU, all layers of a device in one copy."""
        by_device: dict[torch.device, list[str]] = {}
        for layer, buffer in self._buffers.items():
            if buffer.device.type != "cpu":
                by_device.setdefault(buffer.device, []).append(layer)
        for layers in by_device.values():
            buffers = [self._buffers[layer] for layer in layers]
            copied = torch.cat([buffer.flatten() for buffer in buffers]).cpu()
            parts = copied.split([buffer.numel() for buffer in buffers])
            for layer, buffer, part in zip(layers, buffers, parts, strict=True):
                self._buffers[layer] = part.view(buffer.shape)

    def recording(self) -> Recording:
        """Return what was recorded; raises if a step was never reached or a number is not finite."""
        if self._slots and not self._buffers:
            raise ValueError(f"None of the recorded steps {sorted(self._slots)} was reached: check timesteps.start.")
        self.leave_device()
        for layer, values in self._buffers.items():
            if not torch.isfinite(values).all():
                raise FloatingPointError(
                    f"The activations of {layer} are not finite or some recorded steps were never reached: check "
                    "model.dtype and that timesteps lie within model.num_steps."
                )
        return Recording(dict(self._buffers), dict(self._kinds), list(self._slots), list(self._levels))
