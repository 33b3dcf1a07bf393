"""Steer the images that have to change, and no others: read what a run is going to show, choose, rewind and shift.

The readers are those of the steering vectors' file; shares say how often each option is wanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from icm_pipeline.arrays import Bools, Floats, Ints
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.looking import Choice
from icm_pipeline.hooks.recording import Recording
from icm_pipeline.hooks.repeats import Schedule
from icm_pipeline.methods.balance import Balance, checked_shares
from icm_pipeline.methods.readers import Reader, reader_for
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors
from icm_pipeline.metrics.outcomes import hard_labels


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
        if look == "auto" or not vectors.readers:
            reader_for(vectors.readers, "auto", [reader.noise_level for reader in vectors.readers])
        elif isinstance(look, bool) or not isinstance(look, int) or look < 1:
            raise ValueError(f'look={look!r}: give a number of steps, 1 or more, or "auto".')
        self._vectors, self._strength, self._shares, self._look = vectors, strength, shares, look
        self._order = _order(shares, vectors.options)
        self._rng = np.random.default_rng(0)
        self._reader: Reader | None = None
        self._pending: tuple[Balance, Ints, Look] | None = None
        self.looks: list[Look] = []
        """One for each call that ended well."""

    @property
    def read(self) -> list[str]:
        """The layers that some reader reads."""
        return list(dict.fromkeys(layer for reader in self._vectors.readers for layer in reader.layers))

    def span(self, schedule: Schedule) -> range:
        """Return the steps from the first steered one to the end of the look; raises ValueError if there are none."""
        self._pending = None
        num_steps = schedule.steps[-1] + 1
        first, levels = self._strength.window(num_steps).start, [schedule.level_of(step) for step in range(num_steps)]
        if isinstance(self._look, int) and self._look <= first:
            raise ValueError(
                f"look={self._look} ends before steering begins, at step {first}, so that there is nothing to rewind: "
                f"look at {first + 1} steps or more, or let the window begin earlier."
            )
        until, self._reader = reader_for(self._vectors.readers, self._look, levels)
        if until <= first:
            until, self._reader = reader_for(self._vectors.readers, first + 1, levels)
        return range(first, until)

    def decide(self, recording: Recording) -> Choice:
        """Read, assign options by the shares, and choose the images that do not show theirs."""
        reader = self._reader
        assert reader is not None
        found = reader.probabilities({layer: recording.activations[layer][:, 0] for layer in reader.layers})
        balance = self._shares if isinstance(self._shares, Balance) else Balance(self._shares)
        places = balance.assign(found[:, self._order], self._rng)
        options = np.array(self._order)[places]
        steered: Bools = options != hard_labels(found)
        names = tuple(self._vectors.options[option] for option in options)
        self._pending = balance, places, Look(names, found, steered, reader)
        strength = replace(self._strength, alpha=np.where(steered, self._alphas(len(found)), 0.0).tolist())
        return Choice(np.flatnonzero(steered).tolist(), Shift(self._vectors, options.tolist(), strength))

    def _alphas(self, num_images: int) -> Floats:
        given = np.array(self._strength.alpha, np.float64).reshape(-1)
        if len(given) not in (1, num_images):
            raise ValueError(f"{len(given)} alphas were given for {num_images} image(s).")
        return given

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
