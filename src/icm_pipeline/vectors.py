"""Steering vectors: per layer a unit direction per recorded step and option, in one safetensors file with metadata."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True)
class SteeringVectors:
    """What steering needs to know.

    directions: {layer: [T, options, d]} of unit length, float32; mean_norms: {layer: [T]} mean length of a pooled
    activation, which is the unit of a relative alpha; steps: the recorded denoising steps, [T]; options: their names.
    """

    directions: dict[str, Tensor]
    mean_norms: dict[str, Tensor]
    steps: tuple[int, ...]
    options: tuple[str, ...]
    model: str
    attribute: str

    def slot(self, step: int) -> int:
        """Return the index of the recorded step nearest to a denoising step; the earlier one of two."""
        return min(range(len(self.steps)), key=lambda slot: abs(self.steps[slot] - step))

    def averaged(self) -> "SteeringVectors":
        """Return one direction per layer and option, the normalised mean over steps, used at every step."""
        directions = {
            layer: torch.nn.functional.normalize(values.mean(0, keepdim=True), dim=-1).expand_as(values).contiguous()
            for layer, values in self.directions.items()
        }
        return SteeringVectors(directions, self.mean_norms, self.steps, self.options, self.model, self.attribute)


def save_vectors(vectors: SteeringVectors, path: Path) -> None:
    tensors = {f"direction/{layer}": values.float().contiguous() for layer, values in vectors.directions.items()}
    tensors |= {f"mean_norm/{layer}": values.float().contiguous() for layer, values in vectors.mean_norms.items()}
    details = {
        "steps": vectors.steps,
        "options": vectors.options,
        "model": vectors.model,
        "attribute": vectors.attribute,
    }
    save_file(tensors, path, metadata={"icm_pipeline": json.dumps(details)})


def load_vectors(path: Path, layers: list[str]) -> SteeringVectors:
    """Read the vectors of some layers; raises ValueError listing the layers there are if one is missing."""
    with safe_open(path, framework="pt") as file:
        details = json.loads(file.metadata()["icm_pipeline"])
        known = [name.removeprefix("direction/") for name in file.keys() if name.startswith("direction/")]  # noqa: SIM118
        missing = [layer for layer in layers if layer not in known]
        if missing:
            raise ValueError(f"{path} has no vectors for {missing}; it holds {', '.join(known)}.")
        return SteeringVectors(
            directions={layer: file.get_tensor(f"direction/{layer}") for layer in layers},
            mean_norms={layer: file.get_tensor(f"mean_norm/{layer}") for layer in layers},
            steps=tuple(details["steps"]),
            options=tuple(details["options"]),
            model=details["model"],
            attribute=details["attribute"],
        )
