"""How far images must be pushed towards each option."""

from dataclasses import dataclass

from icm_pipeline.methods.tuning import Tuned
from icm_pipeline.results.records import Record


@dataclass(frozen=True)
class Tuning(Record):
    """What stage=tune found."""

    FILE = "tune.json"
    wanted_share: float
    alpha_unit: str
    num_images: int
    """Made, steered or not."""
    options: dict[str, Tuned]
