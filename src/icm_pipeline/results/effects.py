"""What pushing does: each layer alone, and the arms of an audit."""

from dataclasses import dataclass
from typing import Literal

from icm_pipeline.results.evaluation import Interval
from icm_pipeline.results.records import Record

UNSTEERED = "unsteered"  # the arm of stage=causal that the others are held against
Sort = Literal[
    "selected", "random_layers", "worst_layers", "random_direction", "named", "other_subjects", "layer", "window"
]  # fmt: skip


@dataclass(frozen=True)
class LayerEffect:
    """What pushing one layer alone does."""

    kind: str
    mean: float
    """Of the change of the labeler's probability of the wanted option, against unsteered twins."""
    interval_95: Interval
    """By images."""


@dataclass(frozen=True)
class Effects(Record):
    """What stage=causal found, layers in the network's order."""

    FILE = "effects.json"
    num_images: int
    """Of each layer."""
    layers: dict[str, LayerEffect]


@dataclass(frozen=True)
class PushedArm:
    """What one arm is; the ids of its images are `<arm>-<id>`."""

    sort: Sort
    layers: list[str]
    """The pushed layers; none where the images are unsteered."""
    num_images: int


@dataclass(frozen=True)
class Pushes(Record):
    """The arms of stage=push, stage=causal and stage=inject, in the order of their images."""

    FILE = "pushes.json"
    arms: dict[str, PushedArm]


def arm_of(image_id: str) -> tuple[str, str]:
    """Return the arm of an image, and its id within it: that of its twins."""
    arm, _, own = image_id.rpartition("-")
    return arm, own
