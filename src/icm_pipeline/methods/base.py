"""The contract of a method: one way to change what a model makes, one module of this package that defines METHOD.

A module is imported when a run names its method. What is heavy, as torch, is imported inside of its functions if the
module is to be read without it.
"""

import math
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
ALL_STEPS = -1  # in Method.published: as many as the run has
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
    selects: Callable[[Mapping[str, Any]], bool] = lambda params: True
    """Whether it takes layers from the selection that it or its fit needs: with other params it may leave it alone."""
    from_first_step: bool = False
    """Whether it leaves prompts and the steps before method.first_step alone, which the originals can then lend."""
    whole_prompts: bool = False
    """Whether all images of a prompt must be made in one batch; one that has a parameter `group` lets it be parts."""
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
    """Of params that may be smaller than where it was published, what they are there; and of `counted`."""
    for_each_option: tuple[str, ...] = ()
    """Those of which `published` says what they are for each option, where here they are for all together."""
    counted: Callable[[Mapping[str, Any], int], Mapping[str, int]] = lambda params, num_options: {}
    """What follows from params and the number of options and may be smaller than published, as epochs of updates."""
    keep: Callable[[MethodInputs, Path], None] = lambda inputs, folder: None
    """Writes what steering elsewhere takes beside the images."""

    @property
    def parents(self) -> tuple[str, ...]:
        """The stages that steering needs."""
        return (*self.needs, *(("fit",) if self.fit else ()))

    def learning(self, params: Mapping[str, Any] | None, look: int | str | None) -> tuple[str, ...]:
        """Return the stages whose time its learning is: what others do not share, as they do images and labels.

        look: how many steps run before images are read; None if none are.
        """
        fits = self.fit.needs if self.fit else ()
        takes_layers = self.in_layers or ("select" in fits and self.selects(params or {}))
        asked = {"probe": takes_layers, "foretell": look is not None, "maps": "maps" in fits, "fit": bool(self.fit)}
        return tuple(stage for stage, is_asked in asked.items() if is_asked)

    def what_it_asks(self, how: Any) -> str:
        """Return in a few words what it takes, with what steering by what images show adds to that.

        how: the method's settings, or results.steering.Steering, which has the same names.
        """
        if how.assignment != "least_change":
            return self.asks_for
        read = "a labeler's word on every unsteered image" if how.look is None else "readers of early steps, fitted"
        tries = f"the labeler's word on up to {how.tries} tries for each image that changes"
        return "; ".join([self.asks_for, read, *([tries] if how.tries > 1 else [])])

    def what_is_smaller(
        self, params: Mapping[str, Any] | None, num_options: int = 2, num_steps: int | None = None
    ) -> str:
        """Return in a few words what is smaller than where the method was published; empty if nothing is."""
        own, there = {**(params or {}), **self.counted(params or {}, num_options)}, dict[str, float]()
        for name, number in self.published.items():
            of_all = number * (num_options if name in self.for_each_option else 1)
            there[name] = (num_steps or math.inf) if number == ALL_STEPS else of_all
        less = [f"{name} {own[name]:,} instead of {'all' if self.published[name] == ALL_STEPS else f'{most:,}'}"
                for name, most in there.items() if own.get(name, most) < most]  # fmt: skip
        return "; ".join([*([self.scaled_down] if self.scaled_down else []), *less])

    def batch_size(self, settings: Settings, num_images: int) -> int:
        """Return how many images are one batch where a prompt has so many.

        Where a prompt's images must be, all of them, or with method.params.group the most that fit into it without a
        rest: an equal part of them.
        """
        if not self.whole_prompts:
            return settings.compute.batch_size
        most = min(settings.method.params.get("group") or num_images, num_images)
        return next(size for size in range(most, 0, -1) if num_images % size == 0)

    def is_tuned(self, settings: Settings) -> bool:
        """Say whether the alpha of each option is searched."""
        return settings.alpha == AUTO and "alpha" in self.reads

    def check_family(self, family: "Family", model: str) -> None:
        """Raise ConfigError for a model, called by its name, of a family that the method does not apply to."""
        if reason := self.why_not(family):
            raise ConfigError(f"method={self.name} does not apply to {model}: {reason}")
