"""Models loaded from a folder without composing a configuration."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.registry import load_backbone
from icm_pipeline.config.models import ComputeConfig, ComputeDefaults, ModelConfig, SteeringDefaults

NUM_STEPS = 4
MODEL: dict[str, Any] = {
    **{each.name: None for each in fields(ModelConfig)},
    "name": "random", "num_steps": NUM_STEPS, "guidance_scale": 3.0, "call": {}, "sites": {},
    "compute": ComputeDefaults("cpu", "float32", 4), "steering": SteeringDefaults(1.0, "relative", 1, 1.0, 0, None),
}  # fmt: skip
COMPUTE: dict[str, Any] = {
    "device": "cpu", "dtype": "float32", "offload": "none", "vae_slicing": False, "vae_tiling": False,
    "compile": False, "batch_size": 4, "grow_batch": False, "decode_batch_size": None, "num_threads": None,
}  # fmt: skip


def load(path: Path | str, size: int | None = None, **settings: Any) -> Backbone:
    """Load a pipeline on the CPU, with guidance on; settings: other values of the model's and of compute's fields."""
    changed = {name: settings.pop(name, value) for name, value in COMPUTE.items()}
    model = ModelConfig(**{**MODEL, "path": str(path), "height": size, "width": size, **settings})
    return load_backbone(model, ComputeConfig(**changed))
