"""The contract of a method: one way to change what a model makes, one module of this package that defines METHOD.

A module is imported when a run names its method. What is heavy, as torch, is imported inside of its functions if the
module is to be read without it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import AUTO, Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.tuning import Tuned
from icm_pipeline.store.artifacts import Artifact

if TYPE_CHECKING:
    from torch import Tensor

    from icm_pipeline.arrays import Ints
    from icm_pipeline.backbones.base import Backbone, Family
    from icm_pipeline.hooks.recording import RecordedAt
    from icm_pipeline.localization.pooled import Pooled
    from icm_pipeline.methods.vectors import SteeringVectors


ACTIVATIONS = "activations"  # in Fit.needs: of `generate`, or of `extract`
# Parts of Method.reads: of what draws an option, of what acts in a window of steps, of what is so long as alpha says.
DRAWN = ("method.name", "method.params", "method.assignment", "method.draw_size", "method.target_shares")
WINDOW = ("method.first_step", "method.last_step")
LENGTH = ("alpha", "method.alpha_unit")
# In Fit.needs, for what learns from images, their prompts and what they show.
LABELLED = ("generate", "label")


@dataclass(frozen=True)
class ProbeData:
    """The probe dataset, for a method to learn from."""

    labels: "Ints"
    """The option that each image shows [n], -1 for none."""
    prompts: list[str]
    """Of each image."""
    recorded: "RecordedAt | None"
    """Where the activations were recorded; None if the method needs none."""
    read: Callable[[str], "Pooled"]
    """From a layer's name to its activations [n, T, d]; of the bottleneck, with `maps`, d is a whole map."""

    def by_step(self, layer: str) -> "Iterator[Tensor]":
        """Yield a layer's activations [n, 1, d] in float32, step by step: whole maps of all steps are too many."""
        import torch

        pooled, rows = self.read(layer), torch.arange(len(self.labels))
        for step in range(pooled.shape[1]):
            yield pooled.rows(rows, step, step + 1).movedim(0, 1)


@dataclass(frozen=True)
class MethodInputs:
    """What a method works with beside the model."""

    settings: Settings
    artifacts: Mapping[str, Artifact]
    """Of the stages that the method needs, and of `fit`, `tune`, `foretell` and `assign` where they are run."""
    layers: list[str] = field(default_factory=list)
    """The selected layers, for a method that acts in them."""
    option_of: Mapping[str, int] = field(default_factory=dict)
    """The index of the option that each image is steered to, by image id; empty while the method is fitted."""
    tuned: Mapping[str, Tuned] = field(default_factory=dict)
    """With alpha=auto: the alpha of each option."""
    probe_data: ProbeData | None = None
    """What a fit that needs LABELLED learns from."""

    @property
    def strength(self) -> Strength:
        """How strongly images are steered; where each option has an alpha of its own, by the largest."""
        alpha, how = self.settings.alpha, self.settings.method
        if self.tuned:
            alpha = max(found.alpha for found in self.tuned.values())
        return Strength(alpha, how.alpha_unit, how.first_step, how.last_step, norm_preserving=how.norm_preserving)

    def strength_of(self, jobs: Sequence[Job]) -> Strength:
        """Return how strongly each of some images is steered, by its option."""
        if not self.tuned:
            return self.strength
        names = list(self.settings.attribute.options)
        return replace(self.strength, alpha=[self.tuned[names[self.option_of[job.image_id]]].alpha for job in jobs])

    @cached_property
    def vectors(self) -> "SteeringVectors":
        """The probes' vectors of the selected layers; raises ValueError if they are for other options."""
        from icm_pipeline.methods.vectors import load_vectors

        method, names = self.settings.method, tuple(self.settings.attribute.options)
        vectors = load_vectors(self.artifacts["probe"].path(f"vectors-{method.direction}.safetensors"), self.layers)
        if vectors.options != names:
            raise ValueError(f"The vectors are for the options {vectors.options}, the attribute has {names}.")
        return vectors.averaged() if method.vector == "mean" else vectors


@dataclass(frozen=True)
class Fit:
    """What a method learns before it is used; stage=fit keeps the result, and what it cost."""

    run: Callable[["Backbone", MethodInputs, Path], int]
    """Writes what was learnt into the folder; returns how many images that took."""
    needs: tuple[str, ...] = ()
    """The stages whose artifacts it learns from; `activations` stands for the one that holds the pooled activations."""
    reads: tuple[str, ...] = ("method.name", "method.params")
    """The settings that change what is learnt, beside the model, the attribute and the seed."""


@dataclass(frozen=True)
class Method:
    """One way to change what a model makes."""

    name: str
    applied: Callable[["Backbone", MethodInputs, list[Job]], AbstractContextManager[Any]]
    """The context in which a batch is denoised. It undoes whatever it changed at its end, after an exception too.

    Autograd does not record denoising; a hook that needs gradients computes them under `torch.enable_grad()`.
    """
    words: Callable[[Any], list[str]]
    """How a page calls a way of steering: from results.steering.Steering to a few words each."""
    needs: tuple[str, ...] = ()
    """The stages whose artifacts it reads."""
    reads: tuple[str, ...] = ("alpha", "method", "attribute.options")
    """The settings that change its images, beside the model and the jobs: its key stands for these."""
    params: tuple[str, ...] = ()
    """The names that method.params may have."""
    in_layers: bool = False
    """Whether it acts in the selected layers and nowhere else."""
    from_first_step: bool = False
    """Whether it leaves prompts and the steps before method.first_step alone, which the originals can then lend."""
    whole_prompts: bool = False
    """Whether all images of a prompt must be made in one batch."""
    draws: Callable[[Settings], bool] = lambda settings: True
    """Whether an option is drawn for each image; where none is, nobody can say whether it was obeyed."""
    changes_weights: bool = False
    """Whether it makes of the model another one for all images, as a bench's kind says where no option is drawn."""
    why_not: Callable[["Family"], str] = lambda family: ""
    """Why it does not apply to a family of models; empty if it does."""
    prompt_of: Callable[[Job, MethodInputs], str] = lambda job, inputs: job.prompt
    """The prompt that is generated; tables and FD keep the job's own."""
    fit: Fit | None = None
    asks_for: str = ""
    """What it takes of labels, images, training and the model, in a few words, for the table of a bench."""
    scaled_down: str = ""
    """What is smaller here than where it was published whatever the settings, in a few words; empty if nothing is."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Of params that may be smaller than where it was published, what they are there."""
    keep: Callable[[MethodInputs, Path], None] = lambda inputs, folder: None
    """Writes what steering elsewhere takes beside the images."""

    @property
    def parents(self) -> tuple[str, ...]:
        """The stages that steering needs."""
        return (*self.needs, *(("fit",) if self.fit else ()))

    def what_is_smaller(self, params: Mapping[str, Any] | None) -> str:
        """Return in a few words what is smaller than where the method was published; empty if nothing is."""
        given = {name: (params or {}).get(name, there) for name, there in self.published.items()}
        less = [f"{name} {given[name]:,} instead of {there:,}" for name, there in self.published.items()
                if given[name] < there]  # fmt: skip
        return "; ".join([*([self.scaled_down] if self.scaled_down else []), *less])

    def is_tuned(self, settings: Settings) -> bool:
        """Say whether the alpha of each option is searched."""
        return settings.alpha == AUTO and "alpha" in self.reads

    def check_family(self, family: "Family", model: str) -> None:
        """Raise ConfigError for a model, called by its name, of a family that the method does not apply to."""
        if reason := self.why_not(family):
            raise ConfigError(f"method={self.name} does not apply to {model}: {reason}")
