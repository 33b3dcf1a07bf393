"""How well the activations of early steps foretell what finished images show."""

from dataclasses import dataclass

from icm_pipeline.results.records import Record


@dataclass(frozen=True)
class Reading:
    """How well one step foretells."""

    step: int
    """From 0; what reads it looks after step + 1 steps."""
    accuracy: float
    """The share of images that are foretold by what was fitted to others."""
    calibration_error: float
    """The mean distance between how sure it is and how often it is right."""
    num_layers: int
    C: float
    """The inverse strength of the penalty."""


@dataclass(frozen=True)
class Foretold(Record):
    """What the foretell stage found, by step."""

    FILE = "foretell.json"
    num_images: int
    chance: float
    """The share of the option that most images show."""
    readings: list[Reading]
