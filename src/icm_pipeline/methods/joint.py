"""Several attributes at once: shares of cells, as ("woman", "old"), met by changing as few attributes as possible.

An image is pushed along each attribute that it does not show yet, and along no other. What its cell's probability is,
is the product of what the attributes' readers say: they are taken for independent, given the activations that are read.
Where attributes steer one layer, their directions are made orthogonal there (`methods.orthogonal`).
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from icm_pipeline.arrays import Bools, Floats, Ints
from icm_pipeline.backbones.base import Site
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.looking import Choice
from icm_pipeline.hooks.prompts import SeenPrompts
from icm_pipeline.hooks.recording import Recording
from icm_pipeline.hooks.repeats import Schedule
from icm_pipeline.methods.balance import Balance, check_mapping
from icm_pipeline.methods.cells import Cell, every_cell, least_change_of_cells, shares_of_cells, shown_options
from icm_pipeline.methods.looking import alphas_of, check_look, reader_after
from icm_pipeline.methods.naming import named_options
from icm_pipeline.methods.orthogonal import orthogonal, overlaps
from icm_pipeline.methods.readers import Reader, good_ones, reader_near
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JointLook:
    """What one call of a pipeline was found to be about to show of several attributes, and what was made of it."""

    attributes: tuple[str, ...]
    options: tuple[tuple[str | None, ...], ...]
    """The cell of each image [n]: an option of each attribute, None of one that its prompt names."""
    probabilities: tuple[Floats, ...]
    """[n, options] of each attribute, as its reader foretold them."""
    steered: Bools
    """[n, attributes], what was changed."""
    readers: tuple[Reader, ...]


class Shifts:
    """A hook that shifts along several attributes, each with directions, options and a strength of its own."""

    def __init__(
        self, vectors: Sequence[SteeringVectors], options: Sequence[Sequence[int] | int], strengths: Sequence[Strength]
    ) -> None:
        """options: of each attribute, for all images or for each."""
        self._shifts = [Shift(*each) for each in zip(vectors, options, strengths, strict=True)]
        self._layers = [frozenset(of.layers) for of in vectors]

    def _at(self, site: Site) -> list[Shift]:
        return [shift for shift, layers in zip(self._shifts, self._layers, strict=True) if site.layer in layers]

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        result = None
        for shift in self._at(site):
            moved = shift(tokens if result is None else result, site, clock)
            result = result if moved is None else moved
        return result

    def write_into(self, tokens: Tensor, site: Site, clock: StepClock) -> None:
        for shift in self._at(site):
            shift.write_into(tokens, site, clock)

    def end_run(self, clock: StepClock) -> None:
        for shift in self._shifts:
            shift.end_run(clock)


class Attributes:
    """Attributes that are steered together, with orthogonal directions."""

    def __init__(self, vectors: Sequence[SteeringVectors], strengths: Sequence[Strength]) -> None:
        """Raises ValueError for less than two attributes, those of different models, and options of the same name."""
        _check(vectors)
        found = overlaps(*vectors)
        names = " and ".join(each.attribute for each in vectors)
        log.info("%s overlap by %s", names, ", ".join(f"{v:.2f} in {layer}" for layer, v in found.items()) or "nothing")
        self.vectors, self.strengths = orthogonal(vectors), list(strengths)
        self._own_alphas = [_own_alphas(each) for each in vectors]

    @property
    def layers(self) -> list[str]:
        """The layers that some attribute is steered in."""
        return list(dict.fromkeys(layer for each in self.vectors for layer in each.layers))

    @property
    def options(self) -> list[tuple[str, ...]]:
        """The options of each attribute."""
        return [each.options for each in self.vectors]

    def cell(self, options: Sequence[Any]) -> list[int]:
        """Return the indices of an option of each attribute; raises ValueError for anything else."""
        if isinstance(options, str) or len(options) != len(self.vectors):
            names = ", ".join(each.attribute for each in self.vectors)
            raise ValueError(f"{options!r} is no option of each of {names}, in this order: give a tuple of them.")
        return [each.option_index(name) for each, name in zip(self.vectors, options, strict=True)]

    def shifts(self, cells: Sequence[Any]) -> Shifts:
        """Return the hook that pushes all images to a cell, as ("woman", "old"), or each to its own of a list."""
        if not all(isinstance(name, str) for name in cells):
            rows = np.array([self.cell(options) for options in cells])
            return self.pushes(rows, np.ones(rows.shape, np.bool_))
        options, strengths = self.cell(cells), list(self.strengths)
        for place, own in enumerate(self._own_alphas):
            if own is not None:
                strengths[place] = replace(strengths[place], alpha=float(own[options[place]]))
        return Shifts(self.vectors, options, strengths)

    def pushes(self, options: Ints, along: Bools) -> Shifts:
        """Return the hook that pushes images to options of their own [n, attributes], along some attributes alone."""
        strengths = []
        for towards, pushed, strength, own in zip(options.T, along.T, self.strengths, self._own_alphas, strict=True):
            alphas = np.where(pushed, alphas_of(towards, strength, own), 0.0)
            strengths.append(replace(strength, alpha=alphas.tolist()))
        return Shifts(self.vectors, options.T.tolist(), strengths)


class LookAndSteerJointly:
    """A plan for `hooks.looking`: push each image along the attributes that its cell asks for and it does not show."""

    def __init__(self, attributes: Attributes, shares: Mapping[Cell, float] | Balance, look: int | str) -> None:
        """Raises ValueError for vectors without readers, shares of other cells and a look that cannot be."""
        self._attributes, self._vectors, self._shares = attributes, attributes.vectors, shares
        if not isinstance(shares, Balance):
            check_mapping(shares)
        self._cells = shares_of_cells(shares, attributes.options)
        self._look, self._rng = look, np.random.default_rng(0)
        for each in self._vectors:
            with _of_attribute(each):
                check_look(look, each.readers)
        self._readers: list[Reader] = []
        self._pending: tuple[list[Cell], JointLook] | None = None
        self.seen: SeenPrompts | None = None
        """The prompts of the pipeline's call, where somebody reads them."""
        self.looks: list[JointLook] = []
        """One for each call that ended well."""

    @property
    def read(self) -> list[str]:
        """The layers that some reader reads."""
        readers = [reader for each in self._vectors for reader in each.readers]
        return list(dict.fromkeys(layer for reader in readers for layer in reader.layers))

    def span(self, schedule: Schedule) -> range:
        """Return the steps from the first that any attribute is steered at to the end of the look of all."""
        self._pending = None
        num_steps = schedule.steps[-1] + 1
        levels = [schedule.level_of(step) for step in range(num_steps)]
        first = min(strength.window(num_steps).start for strength in self._attributes.strengths)
        found = [self._after(each, first, levels) for each in self._vectors]
        until = max(steps for steps, _ in found)
        self._readers = [
            reader if steps == until else _good_reader(each, until, levels)
            for each, (steps, reader) in zip(self._vectors, found, strict=True)
        ]
        return range(first, until)

    def _after(self, vectors: SteeringVectors, first: int, levels: Sequence[float]) -> tuple[int, Reader]:
        with _of_attribute(vectors):
            return reader_after(vectors.readers, self._look, first, levels)

    def decide(self, recording: Recording, clock: StepClock) -> Choice:
        """Read every attribute, assign cells by the shares, and choose what each image does not show of its own."""
        found = tuple(
            reader.probabilities({layer: recording.activations[layer][:, 0] for layer in reader.layers})
            for reader in self._readers
        )
        prompts = self.seen.prompts_of(clock) if self.seen is not None else None
        prompts = [""] * len(found[0]) if prompts is None else prompts
        options = self._assigned(found, prompts)
        steered: Bools = (options >= 0) & (options != shown_options(found))
        self._pending = self._whole_cells(options), JointLook(
            tuple(each.attribute for each in self._vectors), tuple(map(self._names, options)), found, steered,
            tuple(self._readers),
        )  # fmt: skip
        pushes = self._attributes.pushes(np.maximum(options, 0), steered)
        return Choice(np.flatnonzero(steered.any(1)).tolist(), pushes)

    def _assigned(self, found: Sequence[Floats], prompts: Sequence[str]) -> Ints:
        """Return an option of each attribute for each image [n, attributes], -1 of one that its prompt names.

        What a prompt leaves open gets the shares of its own attributes, summed over the options of the named ones.
        """
        is_shared = isinstance(self._shares, Balance)
        groups: defaultdict[tuple[str, tuple[bool, ...]], list[int]] = defaultdict(list)
        for image, prompt in enumerate(prompts):
            is_open = tuple(not named_options(prompt, each.words) for each in self._vectors)
            groups["" if is_shared else prompt, is_open].append(image)
        options, rng = np.full((len(prompts), len(found)), -1), self._rng if is_shared else np.random.default_rng(0)
        for (_, is_open), images in groups.items():
            left = [place for place, one in enumerate(is_open) if one]
            named = tuple(place for place, one in enumerate(is_open) if not one)
            if left:
                shares, counts = self._cells.sum(axis=named), self._counts().sum(axis=named)
                seen = [found[place][images] for place in left]
                options[np.array(images)[:, None], left] = least_change_of_cells(seen, shares, counts, rng)
        return options

    def _counts(self) -> Ints:
        """Return how many images of each cell were made so far, by an axis for each attribute."""
        if not isinstance(self._shares, Balance):
            return np.zeros(self._cells.shape, np.int64)
        counts = self._shares.counts
        return np.array([counts[cell] for cell in every_cell(self._attributes.options)]).reshape(self._cells.shape)

    def _names(self, options: Ints) -> tuple[str | None, ...]:
        named = zip(self._vectors, options, strict=True)
        return tuple(None if option < 0 else each.options[option] for each, option in named)

    def _whole_cells(self, options: Ints) -> list[Cell]:
        """Return the cells of the images of which no attribute was named: those that a balance counts."""
        return [self._names(row) for row in options if (row >= 0).all()]  # type: ignore[misc]

    def end_run(self, clock: StepClock) -> None:
        """Count the images of a run that ended well."""
        if self._pending is None:
            return
        cells, look = self._pending
        if isinstance(self._shares, Balance):
            order = list(self._shares.shares)
            self._shares.count(np.array([order.index(cell) for cell in cells], np.int64))
        self.looks.append(look)
        self._pending = None


def _good_reader(vectors: SteeringVectors, until: int, levels: Sequence[float]) -> Reader:
    """Return what look=auto takes after so many steps, which another attribute asked for."""
    reader = reader_near(good_ones(vectors.readers), levels[until - 1])
    if reader is None:
        raise ValueError(
            f"look=auto: all attributes are read after {until} steps, as another asks, and {vectors.attribute} has no "
            "reader of that step that is good enough: give a number of steps."
        )
    return reader


def _own_alphas(vectors: SteeringVectors) -> Floats | None:
    """Return the alphas that were searched for the options; raises ValueError if some lack theirs."""
    with _of_attribute(vectors):
        return np.array([vectors.alpha_of(name) for name in vectors.options]) if vectors.tuned else None


def _check(vectors: Sequence[SteeringVectors]) -> None:
    """Raise ValueError for vectors that cannot be used together."""
    if len(vectors) < 2:
        raise ValueError(f"vectors: {len(vectors)} in a list: give two or more attributes, or the vectors themselves.")
    models = sorted({each.model for each in vectors if each.model})
    if len(models) > 1:
        raise ValueError(
            f"The vectors were made on different models, {', '.join(models)}: all have to be of the pipeline's."
        )
    names = [option for each in vectors for option in each.options]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"Two attributes have an option {' and '.join(map(repr, twice))}: give each a name of its own, so that it "
            "is plain which of them a share means."
        )


@contextmanager
def _of_attribute(vectors: SteeringVectors) -> Iterator[None]:
    """Let an error say which attribute it is of."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{vectors.attribute or 'one of the attributes'}: {error}") from error
