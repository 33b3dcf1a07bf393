"""What the activations of one early step tell of the finished image: a linear, calibrated probe over several layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from icm_pipeline.arrays import Floats


@dataclass(frozen=True)
class Reader:
    """Foretells at one step which option a finished image will show."""

    step: int
    """The recorded step that it reads, from 0."""
    noise_level: float
    """Of that step, see `hooks.clock.noise_levels`."""
    weights: dict[str, Tensor]
    """{layer: [options, d]}, float32, on raw pooled activations."""
    bias: Tensor
    """[options], float32."""
    accuracy: float
    """The share of held-out images whose option it foretells."""

    @property
    def layers(self) -> list[str]:
        return list(self.weights)

    def probabilities(self, activations: Mapping[str, Tensor]) -> Floats:
        """Return the probability of each option [n, options] from the pooled activations of its layers {layer: [n, d]}.

        Raises ValueError for activations of another width than the weights.
        """
        logits = self.bias.double().repeat(len(next(iter(activations.values()))), 1)
        for layer, weights in self.weights.items():
            found = activations[layer]
            if found.shape[-1] != weights.shape[-1]:
                raise ValueError(
                    f"The reader of {layer} is {weights.shape[-1]} wide and its activations {found.shape[-1]}: it was "
                    "made on another model."
                )
            logits += found.cpu().double() @ weights.double().T
        return torch.softmax(logits, dim=1).numpy()


def nearest_level(levels: Sequence[float], noise_level: float) -> int:
    """Return the index of the level that is nearest, the noisier of two.

    Levels are compared as angles, which spreads them evenly at both ends, so that what was made on one schedule serves
    another.
    """
    here = math.asin(min(1.0, noise_level))
    distances = [round(abs(math.asin(min(1.0, level)) - here), 9) for level in levels]
    return min(range(len(distances)), key=lambda index: (distances[index], -levels[index]))
