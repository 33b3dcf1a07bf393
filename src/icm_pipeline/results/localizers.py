"""What the other localizers found, and how their rankings of layers agree with the probes'."""

from dataclasses import dataclass

from icm_pipeline.results.evaluation import Interval
from icm_pipeline.results.records import Record


@dataclass(frozen=True)
class WindowEffect:
    """What it does to give another prompt to some cross-attention layers and to nothing else."""

    layers: list[str]
    share: float
    """The labeler's mean probability of the option that is named."""
    effect: float
    """That share less the same images' of which no layer is given another prompt."""
    interval_95: Interval
    """Of the effect, by images."""
    fd: float
    """Of the images of one subject, mean over subjects; options are named in equal shares of each."""
    clip_i: float
    """Mean likeness to the same images of which no layer is given another prompt."""


@dataclass(frozen=True)
class Injections(Record):
    """What stage=inject found."""

    FILE = "injections.json"
    num_images: int
    """Of each window."""
    num_subjects: int
    share: float
    """Of the option, without injection."""
    fd: float
    """Without injection."""
    layers: list[str]
    """All cross-attention layers, in the order in which the model runs them."""
    everywhere: WindowEffect
    """All of them at once: what the prompt can do by cross-attention."""
    windows: list[WindowEffect]
    """By width, and then in the order of the layers."""

    def of_width(self, width: int) -> list[WindowEffect]:
        return [window for window in self.windows if len(window.layers) == width]

    @property
    def widths(self) -> list[int]:
        return sorted({len(window.layers) for window in self.windows})

    def by_centre(self, width: int) -> dict[str, WindowEffect]:
        """Return the windows of a width by the layer in their middle, of an even number the first of both."""
        return {window.layers[(width - 1) // 2]: window for window in self.of_width(width)}


@dataclass(frozen=True)
class LayerContribution:
    """The mean norm of what the words that name an option add to an image token."""

    mean: float
    interval_95: Interval
    """By images."""
    by_step: list[float]
    """At each recorded step [T]."""


@dataclass(frozen=True)
class Contributions(Record):
    """What stage=contribution found, layers in the network's order."""

    FILE = "contributions.json"
    num_images: int
    steps: list[int]
    layers: dict[str, LayerContribution]


@dataclass(frozen=True)
class Withheld(Record):
    """What stage=withhold found: what is left of a named option where some layers are not told of it."""

    FILE = "withheld.json"
    num_images: int
    """Of each set of layers; none where nothing can be withheld."""
    share: float | None
    """Of the named option where all layers are told."""
    sets: dict[str, WindowEffect]
    """{`all`, `most 3`, `least 3`, ...: layers by their contributions}."""
    why_not: str = ""
    """Why nothing can be withheld from the model's layers; empty if it can."""


@dataclass(frozen=True)
class Correlation:
    """How two localizers' rankings of the same layers agree."""

    one: str
    other: str
    rho: float
    """Spearman's."""
    interval_95: Interval
    num_layers: int


@dataclass(frozen=True)
class Localizers(Record):
    """What stage=localize found."""

    FILE = "localizers.json"
    localizers: list[str]
    layers: dict[str, dict[str, float]]
    """{layer: {localizer: its figure}}, for the layers that text comes in by; what a localizer has not is left out."""
    correlations: list[Correlation]
    left_out: dict[str, str]
    """{pair of localizers: why their rankings cannot be compared}."""
