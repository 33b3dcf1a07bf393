"""What a layer's probes read of a run, step by step: the choice being made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from icm_pipeline.arrays import Floats
from icm_pipeline.methods.readers import nearest_level

PROBES = "probes.safetensors"  # what stage=probe leaves beside its vectors


@dataclass(frozen=True)
class LayerReading:
    """The probes of one layer, one for each recorded step."""

    layer: str
    weights: Tensor
    """[T, K, d] on raw pooled activations; K = 1 for two options: the logit of the second."""
    bias: Tensor
    """[T, K]"""
    noise_levels: tuple[float, ...]
    """Of the T recorded steps."""

    def probabilities(self, activations: Tensor, noise_levels: Sequence[float]) -> Floats:
        """Return the probability of each option [n, S, options] from pooled activations [n, S, d] of S steps.

        A step is read by the probe whose noise level is nearest to its own.
        """
        slots = [nearest_level(self.noise_levels, level) for level in noise_levels]
        weights, bias = self.weights[slots].double(), self.bias[slots].double()
        logits = torch.einsum("nsd,skd->nsk", activations.double(), weights) + bias
        if logits.shape[-1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=-1)
        return torch.softmax(logits, dim=-1).numpy()


def read_layer(path: Path, scores: Mapping[str, float], noise_levels: Sequence[float]) -> LayerReading:
    """Return the probes of the layer with the highest score; scores: of layers that may be read."""
    with safe_open(path, framework="pt") as file:
        held = [name.removeprefix("weights/") for name in file.keys() if name.startswith("weights/")]  # noqa: SIM118
        layer = max((name for name in held if name in scores), key=lambda name: scores[name])
        weights, bias = file.get_tensor(f"weights/{layer}"), file.get_tensor(f"bias/{layer}")
    return LayerReading(layer, weights, bias, tuple(noise_levels))
