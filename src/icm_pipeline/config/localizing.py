"""The part of the schema that says which other localizers are held against the probes."""

from dataclasses import dataclass, field

from icm_pipeline.config.bounds import COUNT


@dataclass
class LocalizersConfig:
    """Which of them stage=all asks, and of how many images. Defaults are those of configurations saved before it."""

    injection: bool = False
    """The explicit prompt for some cross-attention layers alone (LocoGen)."""
    contribution: bool = False
    """How much the option's words put into the image (LocK)."""
    intervention: bool = False  # saved configurations may be from before it
    """What is left of a named option where the layers that contribute most are not told of it (LocK)."""
    causal: bool = False
    """What steering each layer alone does, to hold them against."""
    images: int = field(default=48, metadata=COUNT)
    """Of each window of layers, and of prompts that name an option."""
    windows: list[int] = field(default_factory=lambda: [1, 3])
    """How many consecutive cross-attention layers are given the explicit prompt, and how many are not told of it."""
