"""What can be explored: a model's vectors for an attribute, where its choice can be read, who judges, and rivals."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from icm_pipeline.config.schema import AUTO, AttributeConfig, Settings
from icm_pipeline.explore.readings import LayerReading
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.tuning import Tuned
from icm_pipeline.methods.vectors import SteeringVectors
from icm_pipeline.results.scores import Scores
from icm_pipeline.store.artifacts import Artifact


@dataclass(frozen=True)
class Rival:
    """Another method of a run, as that used it."""

    settings: Settings
    artifacts: Mapping[str, Artifact]
    layers: list[str] = field(default_factory=list)
    tuned: Mapping[str, Tuned] = field(default_factory=dict)


@dataclass(frozen=True)
class Material:
    """What one entry of the page's list of attributes stands for."""

    name: str
    """In the list."""
    settings: Settings
    """Of the model, the attribute and the judge."""
    vectors: SteeringVectors
    """Of all layers that have some."""
    chosen: tuple[str, ...]
    """The layers that a run selected, or those that the file has."""
    scores: Scores | None = None
    """How well each layer and step tells the options apart; None where only the layers' means are known."""
    reading: LayerReading | None = None
    """What the chart of the choice reads; None where there are no probes."""
    rivals: Mapping[str, Rival] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    """What opens it again on a command line, after `icm explore`."""
    judge_problem: str = ""
    """Why nobody can say what pictures show; empty if the judge can."""

    @property
    def attribute(self) -> AttributeConfig:
        return self.settings.attribute

    @property
    def options(self) -> tuple[str, ...]:
        return self.vectors.options

    @property
    def prompts(self) -> list[str]:
        return self.attribute.evaluation_prompts

    @property
    def num_steps(self) -> int:
        return self.settings.model.num_steps

    @cached_property
    def strength(self) -> Strength:
        """How the vectors were used, or as the settings would."""
        how = self.settings.method
        configured = Strength(
            self.alpha, how.alpha_unit, how.first_step, how.last_step, self.num_steps, how.norm_preserving
        )
        return self.vectors.strength or configured

    @cached_property
    def alpha(self) -> float:
        """The alpha that the vectors were used with; of several the largest."""
        if self.vectors.tuned:
            return max(found.alpha for found in self.vectors.tuned.values())
        used = None if self.vectors.strength is None else self.vectors.strength.alpha
        if isinstance(used, (int, float)) and used > 0:
            return float(used)
        asked = self.settings.alpha
        return float(self.settings.model.steering.alpha if asked == AUTO else abs(asked)) or 1.0

    @cached_property
    def window(self) -> tuple[int, int]:
        """The first and the last steered step."""
        steps = self.strength.window(self.num_steps)
        return steps.start, steps.stop - 1

    @property
    def layers(self) -> list[str]:
        """All layers with vectors: those of one kind together, in the network's order."""
        kinds = dict.fromkeys(self.vectors.kinds.get(layer, "other") for layer in self.vectors.layers)
        of = {kind: [name for name in self.vectors.layers if self.kind(name) == kind] for kind in kinds}
        return [layer for kind in kinds for layer in of[kind]]

    def has_strength(self, way: str) -> bool:
        """Say whether a way of steering goes further or less far: a rival may have no such number."""
        rival = self.rivals.get(way)
        return rival is None or rival.settings.method.strength is not None or bool(rival.tuned)

    def kind(self, layer: str) -> str:
        return self.vectors.kinds.get(layer, "other")
