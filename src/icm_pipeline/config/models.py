"""The part of the schema that says which model is run, and where and how it computes."""

from dataclasses import dataclass, field
from typing import Any

from icm_pipeline.config import choices
from icm_pipeline.config.bounds import COUNT, number, one_of


@dataclass
class SteeringDefaults:
    """What steering this model starts from: the defaults of alpha, layers.k, probe.C and the method's window."""

    alpha: float
    alpha_unit: str
    k: int
    C: float
    first_step: int
    last_step: int | None


@dataclass
class ComputeDefaults:
    """What the model recommends: its native precision and a batch that fits; `compute` takes them unless set itself."""

    device: str
    dtype: str
    batch_size: int


@dataclass
class OutlineConfig:
    """What of an architecture decides how much its runs compute and keep."""

    widths: dict[str, list[list[int]]]
    """Pairs [width, number of sites] by kind."""
    size: int
    """Pixels of an image's side where none is set."""
    channels: int
    """Of the denoiser's output, per place of the latents."""
    factor: int
    """Pixels a place."""
    rows: int
    """Of a call, per image without guidance."""
    guided_above: float | None
    """The guidance scale above which an image has one row more; None if the scale is an input."""

    @property
    def num_layers(self) -> dict[str, int]:
        """Layers by kind."""
        return {kind: sum(count for _, count in pairs) for kind, pairs in self.widths.items()}


@dataclass
class ModelConfig:
    """Which model, and how to sample from it."""

    name: str
    path: str
    """A local folder, a hub id, or `embedded:<name>`."""
    revision: str | None
    variant: str | None
    num_steps: int = field(metadata=COUNT)
    guidance_scale: float = field(metadata=number())
    height: int | None
    width: int | None
    scheduler: str | None
    """The sampler by name; None keeps the pipeline's own."""
    call: dict[str, Any]
    """Further arguments of the pipeline's call."""
    sites: dict[str, str]
    """Patterns of module names by kind; empty for those of the model's family."""
    outline: OutlineConfig | None
    """Of the published model, for planning before its files are on this disk."""
    compute: ComputeDefaults
    steering: SteeringDefaults


@dataclass
class ComputeConfig:
    """Where and how the model computes. Only dtype and vae_tiling change images by more than rounding."""

    device: str
    """Judges, probes and pretraining follow it unless they are given one of their own."""
    dtype: str = field(metadata=one_of(*choices.DTYPES))
    offload: str = field(metadata=one_of("none", "model", "sequential"))
    """What is on the device only while it runs: one part at a time (model) or one layer (sequential)."""
    vae_slicing: bool
    vae_tiling: bool
    compile: bool
    batch_size: int = field(metadata=COUNT)
    grow_batch: bool
    """Take more images at once than batch_size as long as they fit into a GPU's memory."""
    decode_batch_size: int | None = field(metadata=number(at_least=1, null="the whole batch"))
    num_threads: int | None = field(metadata=number(at_least=1, null="torch's own choice"))
