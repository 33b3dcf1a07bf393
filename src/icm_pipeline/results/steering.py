"""How a set of images was steered, and what fitting its method cost."""

from dataclasses import dataclass
from typing import Any

from icm_pipeline.results.records import Record


@dataclass(frozen=True)
class Steering(Record):
    """The settings of the method, alpha and the steered layers."""

    FILE = "steering.json"
    direction: str
    alpha_unit: str
    assignment: str
    draw_size: int
    first_step: int
    last_step: int | None
    """None for the run's last step."""
    vector: str
    norm_preserving: bool
    target_shares: list[float] | None
    """None for equal shares."""
    method: str
    alpha: float
    """Where each option has one of its own, their mean."""
    layers: list[str]
    rule: str
    """How the layers were selected."""
    kind: str
    """The kind of the selected layers, or `mixed`."""
    params: dict[str, Any] | None = None
    """What the method alone takes."""
    look: int | str | None = None
    """How many steps ran before images were read; None if finished originals were judged, or nothing was asked."""
    tuned: dict[str, float] | None = None
    """With alpha=auto: the alpha of each option."""
    shares_by_prompt: dict[str, list[float]] | None = None
    """In place of target_shares, where prompts have their own."""
    tries: int = 1
    """How many images were steered for each that had to change, at most."""


@dataclass(frozen=True)
class FitCost(Record):
    """What it took to fit a method."""

    FILE = "cost.json"
    seconds: float
    images: int
    """Made or read."""
    device: str
