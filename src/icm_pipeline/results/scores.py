"""The accuracy of every layer's probes, and the selected layers."""

from dataclasses import dataclass

from icm_pipeline.localization.selection import LayerScore
from icm_pipeline.results.records import Record


@dataclass(frozen=True)
class LayerScores:
    """Held-out accuracy of one layer's probes."""

    kind: str
    score: float
    """The mean over timesteps."""
    accuracy: list[float]
    """At each of the recorded steps [T]."""


@dataclass(frozen=True)
class Scores(Record):
    """What the probe stage found, layers in the network's order."""

    FILE = "scores.json"
    steps: list[int]
    chance: float
    """The held-out share of the option that most training images show."""
    num_train: int
    num_test: int
    layers: dict[str, LayerScores]

    @property
    def by_kind(self) -> dict[str, list[float]]:
        """The scores of each kind's layers."""
        kinds = dict.fromkeys(row.kind for row in self.layers.values())
        return {kind: [row.score for row in self.layers.values() if row.kind == kind] for kind in kinds}


@dataclass(frozen=True)
class Selection(Record):
    """What the select stage chose."""

    FILE = "selection.json"
    layers: list[str]
    rule: str
    kind: str
    """The kind of the chosen layers, or `mixed`."""
    ranking: list[LayerScore]
    """Every layer, best first; with rule `causal` a score is the effect of pushing the layer alone."""
