"""Steer the images that have to change, and no others: read what a run is going to show, choose, rewind and shift.

The readers are those of the steering vectors' file; shares say how often each option is wanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from icm_pipeline.arrays import Bools, Floats, Ints
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.looking import Choice
from icm_pipeline.hooks.recording import Recording
from icm_pipeline.hooks.repeats import Schedule
from icm_pipeline.methods.balance import Balance, checked_shares
from icm_pipeline.methods.readers import Reader, nearest_level
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors
from icm_pipeline.metrics.outcomes import hard_labels

GOOD_ENOUGH = 0.9  # the accuracy of a reader that look="auto" takes


@dataclass(frozen=True)
class Look:
    """What one call of a pipeline was found to be about to show, and what was made of it."""

    options: tuple[str, ...]
    """The option of each image [n]: the one it shows already, or is steered to."""
    probabilities: Floats
    """[n, options], in the vectors' order, as the reader foretold them."""
    steered: Bools
    """[n], the images that were changed."""
    reader: Reader


class LookAndSteer:
    """A plan for `hooks.looking`: shift the images whose most probable option is not the one that shares leave them."""

    def __init__(
        self, vectors: SteeringVectors, strength: Strength, shares: Mapping[str, float] | Balance, look: int | str
    ) -> None:
        """Raises ValueError for vectors without readers, shares of other options and a look that cannot be."""
        self._vectors, self._strength = vectors, strength
        self._shares, self._until = shares, look
        self._readers = _readers(vectors)
        self._first_good = _first_good(self._readers) if look == "auto" else None
        self._rng = np.random.default_rng(0)
        self._pending: tuple[Balance, Ints, Look] | None = None
        self._order = _order(shares, vectors.options)
        self.looks: list[Look] = []
        """One for each call that ended well."""

    @property
    def read(self) -> list[str]:
        """The layers that some reader reads."""
        return list(dict.fromkeys(layer for reader in self._readers for layer in reader.layers))

    def span(self, schedule: Schedule) -> range:
        """Return the steps from the first steered one to the end of the look; raises ValueError if there are none."""
        self._pending = None
        num_steps = schedule.steps[-1] + 1
        first, until = self._strength.window(num_steps).start, self._until
        if self._first_good is not None:
            levels = [schedule.level_of(step) for step in range(num_steps)]
            until = max(nearest_level(levels, self._first_good.noise_level), first) + 1
        assert isinstance(until, int)
        if until > num_steps:
            raise ValueError(f"look={until} is beyond this run's {num_steps} steps: look at some of them.")
        if until <= first:
            raise ValueError(
                f"look={until} ends before steering begins, at step {first}, so that there is nothing to rewind: look "
                f"at {first + 1} steps or more, or let the window begin earlier."
            )
        return range(first, until)

    def decide(self, recording: Recording) -> Choice:
        """Read, assign options by the shares, and choose the images that do not show theirs."""
        (level,) = recording.noise_levels
        reader = self._readers[nearest_level([each.noise_level for each in self._readers], level)]
        found = reader.probabilities({layer: recording.activations[layer][:, 0] for layer in reader.layers})
        balance = self._shares if isinstance(self._shares, Balance) else Balance(self._shares)
        places = balance.assign(found[:, self._order], self._rng)
        options = np.array(self._order)[places]
        steered: Bools = options != hard_labels(found)
        names = tuple(self._vectors.options[option] for option in options)
        self._pending = balance, places, Look(names, found, steered, reader)
        alphas = np.broadcast_to(np.array(self._strength.alpha, np.float64).reshape(-1), (len(found),))
        strength = replace(self._strength, alpha=[float(alpha) for alpha in np.where(steered, alphas, 0.0)])
        return Choice(np.flatnonzero(steered).tolist(), Shift(self._vectors, options.tolist(), strength))

    def end_run(self, clock: StepClock) -> None:
        """Count the images of a run that ended well."""
        if self._pending is not None:
            balance, places, look = self._pending
            balance.count(places)
            self.looks.append(look)
            self._pending = None


def _order(shares: Mapping[str, float] | Balance, options: Sequence[str]) -> list[int]:
    """Return the vectors' option at each place of the shares; raises ValueError unless they are the same ones."""
    names = list(shares.shares if isinstance(shares, Balance) else checked_shares(shares))
    if set(names) != set(options):
        raise ValueError(f"shares of {', '.join(names)}: give one for each of {', '.join(options)}, and no other.")
    return [list(options).index(name) for name in names]


def _readers(vectors: SteeringVectors) -> Sequence[Reader]:
    """Return the vectors' readers by step; raises ValueError if there are none, or for other options."""
    if not vectors.readers:
        raise ValueError(
            "These vectors have no readers, which foretell from an early step what an image is going to show: they "
            "were made before there were any, or without. Fit them again."
        )
    for reader in vectors.readers:
        if len(reader.bias) != len(vectors.options):
            raise ValueError(f"The reader of step {reader.step} is of {len(reader.bias)} options: fit them again.")
    return sorted(vectors.readers, key=lambda reader: -reader.noise_level)


def _first_good(readers: Sequence[Reader]) -> Reader:
    """Return the first reader that is good enough; raises ValueError saying how good each is if none is."""
    for reader in readers:
        if reader.accuracy >= GOOD_ENOUGH:
            return reader
    raise ValueError(
        f'look="auto": no reader foretells {GOOD_ENOUGH:.0%} of the images. They foretell '
        + ", ".join(f"{reader.accuracy:.0%} after {reader.step + 1} steps" for reader in readers)
        + ": choose a step with look=<number of steps>, or steer every image with option=."
    )


def checked_look(look: Any) -> int | str:
    """Return how far to look; raises ValueError for what is neither a number of steps nor "auto"."""
    if look is None or look == "auto":
        return "auto"
    if isinstance(look, bool) or not isinstance(look, int) or look < 1:
        raise ValueError(f'look={look!r}: give a number of steps, 1 or more, or "auto".')
    return look
