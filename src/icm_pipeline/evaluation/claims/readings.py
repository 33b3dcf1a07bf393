"""What the claims about reading share: images with labels, prompts and activations, and probes repeated on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from icm_pipeline.arrays import Floats, Floats32, Ints
from icm_pipeline.evaluation.claims.base import AuditInputs
from icm_pipeline.generation.jobs import audited_steps
from icm_pipeline.images.activations import read_activations, read_recording
from icm_pipeline.localization.many_probes import Problem, Solving
from icm_pipeline.localization.repeated import for_each_layer, projected, repeated_folds, standardised, told_right
from icm_pipeline.results.labels import read_labels
from icm_pipeline.store.artifacts import Artifact

SELF, CROSS, FEED_FORWARD = "self_attention", "cross_attention", "feed_forward"


@dataclass(frozen=True)
class Readings:
    """Images with what a probe is to tell of them, and their activations at the audited steps."""

    labels: Ints
    """[n]"""
    prompts: Ints
    """[n], a number per prompt: images of one are no independent samples."""
    kinds: Mapping[str, str]
    """{layer: site kind}, in the network's order."""
    sources: Sequence["Source"]
    """What holds the activations, the images of one after those of another."""

    def rows(self, layer: str) -> Tensor:
        """Return the activations of a layer, [T, n, d]."""
        return torch.cat([source.rows(layer) for source in self.sources], dim=1)

    @property
    def images(self) -> Ints:
        """A group of its own for each image, for splits that tear prompts apart."""
        return np.arange(len(self.labels))

    def layers_of(self, *kinds: str) -> list[str]:
        """Return the layers of these kinds, all where none is given."""
        return [layer for layer, kind in self.kinds.items() if not kinds or kind in kinds]

    def told_right(
        self, inputs: AuditInputs, title: str, problems: Sequence[Problem], layers: Sequence[str], width: int = 0,
        more: float = 1.0,
    ) -> Floats32:  # fmt: skip
        """Return whether each held-out image was told right, [layers, problems, T, n], NaN where it was not held out.

        width: to project wider layers to; 0 for their own. more: how many times as large C is, which counts the sum
        over images.
        """
        how = solving(inputs, more)

        def ask(layer: str) -> Floats32:
            pooled = standardised(self.rows(layer))
            return told_right(projected(pooled, width, layer) if width else pooled, problems, how)

        return np.stack(list(for_each_layer(title, layers, how.device, ask)))

    def width(self, layer: str) -> int:
        return self.sources[0].width(layer)


class Source(Protocol):
    """Activations of some images at the audited steps."""

    def rows(self, layer: str) -> Tensor:
        """Return those of a layer, [T, n, d]."""

    def width(self, layer: str) -> int:
        """Return how many numbers a layer has for an image and step."""


class Recorded:
    """Some images of an artifact, a layer read at a time. Raises ValueError for steps that it does not hold."""

    def __init__(self, artifact: Artifact, steps: list[int], images: Ints) -> None:
        self._artifact, self._recording = artifact, read_recording(artifact)
        if missing := [step for step in steps if step not in self._recording.steps]:
            raise ValueError(
                f"{artifact.folder} holds no activations of steps {missing}, only {self._recording.steps}."
            )
        self._slots = [self._recording.steps.index(step) for step in steps]
        self._images = torch.from_numpy(images)

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each layer, in the network's order."""
        return self._recording.kinds

    def rows(self, layer: str) -> Tensor:
        pooled = read_activations(self._artifact, self._recording.files[layer])
        return torch.cat([pooled.rows(self._images, slot, slot + 1) for slot in self._slots])

    def width(self, layer: str) -> int:
        return read_activations(self._artifact, self._recording.files[layer]).shape[2]


def share_right(right: Floats32) -> Floats:
    """Return the share of an image's turns in which it was told right, over problems and steps, [..., n].

    right: [..., problems, T, n], as told_right found it.
    """
    turns = np.isfinite(right).sum(axis=(-3, -2))
    return np.divide(
        np.nansum(right, axis=(-3, -2), dtype=np.float64), turns, out=np.full(turns.shape, np.nan), where=turns > 0
    )


def solving(inputs: AuditInputs, more: float = 1.0) -> Solving:
    """Return how the audited configuration fits its probes, with C so many times as large."""
    probe = inputs.settings.probe
    return Solving(more * probe.C, probe.max_iter, probe.device, probe.solver)


def probe_readings(inputs: AuditInputs) -> Readings:
    """Return the probe images that show an option."""
    options = list(inputs.settings.attribute.options)
    labels, prompts = read_labels(inputs.artifacts["label"], inputs.artifacts["generate"], options)
    seen = np.flatnonzero(labels >= 0)
    source = Recorded(inputs.activations, audited_steps(inputs.settings), seen)
    return Readings(labels[seen], prompts[seen], source.kinds, [source])


@lru_cache(maxsize=1)
def of_new_prompts(inputs: AuditInputs) -> tuple[Readings, Floats32]:
    """Return the probe images and what probes of every layer tell of prompts that they were not fitted to.

    Several groups of claims begin with it.
    """
    readings, settings = probe_readings(inputs), inputs.settings
    splits = repeated_folds(
        readings.labels, readings.prompts, inputs.size.num_splits, settings.probe.test_share, inputs.rng("new prompts")
    )
    problems = [Problem(readings.labels, split) for split in splits]
    return readings, readings.told_right(inputs, "probes of new prompts", problems, readings.layers_of())
