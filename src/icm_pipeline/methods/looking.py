"""Steer the images that have to change, and no others: read what a run is going to show, choose, rewind and shift.

The readers are those of the steering vectors' file; shares say how often each option is wanted. Images of a prompt that
names an option are left alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np

from icm_pipeline.arrays import Bools, Floats, Ints
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.looking import Choice
from icm_pipeline.hooks.prompts import SeenPrompts
from icm_pipeline.hooks.recording import Recording
from icm_pipeline.hooks.repeats import Schedule
from icm_pipeline.methods.assignment import least_change_by_prompt
from icm_pipeline.methods.balance import Balance, checked_shares
from icm_pipeline.methods.naming import named_options
from icm_pipeline.methods.readers import Reader, reader_for
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors
from icm_pipeline.metrics.outcomes import hard_labels


@dataclass(frozen=True)
class Look:
    """What one call of a pipeline was found to be about to show, and what was made of it."""

    options: tuple[str | None, ...]
    """The option of each image [n]: the one it shows already, or is steered to; None where its prompt names one."""
    probabilities: Floats
    """[n, options], in the vectors' order, as the reader foretold them."""
    steered: Bools
    """[n], the images that were changed."""
    reader: Reader


class LookAndSteer:
    """A plan for `hooks.looking`: shift the images whose most probable option is not the one that shares leave them."""

    def __init__(
        self, vectors: SteeringVectors, strength: Strength, shares: Mapping[str, float] | Balance, look: int | str,
        alphas: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        """Take the alpha of each option where `alphas` has them, in place of the strength's.

        Raises ValueError for vectors without readers, shares of other options, alphas of some options only and a look
        that cannot be.
        """
        check_look(look, vectors.readers)
        if missing := [name for name in vectors.options if alphas and name not in alphas]:
            found, lacking = ", ".join(alphas or ()), ", ".join(missing)
            raise ValueError(f"No alpha was searched for {lacking}; there is one for {found}: give alpha=.")
        self._vectors, self._strength, self._shares, self._look = vectors, strength, shares, look
        self._own_alphas = np.array([alphas[name] for name in vectors.options]) if alphas else None
        self._order = _order(shares, vectors.options)
        self._rng = np.random.default_rng(0)
        self._reader: Reader | None = None
        self._pending: tuple[Ints, Look] | None = None
        self.seen: SeenPrompts | None = None
        """The prompts of the pipeline's call, where somebody reads them."""
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
        until, self._reader = reader_after(self._vectors.readers, self._look, first, levels)
        return range(first, until)

    def decide(self, recording: Recording, clock: StepClock) -> Choice:
        """Read, assign options by the shares, and choose the images that do not show theirs."""
        reader = self._reader
        assert reader is not None
        found = reader.probabilities({layer: recording.activations[layer][:, 0] for layer in reader.layers})
        prompts = self.seen.prompts_of(clock) if self.seen is not None else None
        options = self._assigned(found, [""] * len(found) if prompts is None else prompts)
        steered: Bools = (options >= 0) & (options != hard_labels(found))
        names = tuple(None if option < 0 else self._vectors.options[option] for option in options)
        self._pending = options[options >= 0], Look(names, found, steered, reader)
        towards = np.maximum(options, 0)
        alphas = np.where(steered, alphas_of(towards, self._strength, self._own_alphas), 0.0)
        strength = replace(self._strength, alpha=alphas.tolist())
        return Choice(np.flatnonzero(steered).tolist(), Shift(self._vectors, towards.tolist(), strength))

    def _assigned(self, found: Floats, prompts: Sequence[str]) -> Ints:
        """Return an option for each image [n], -1 for one whose prompt names an option."""
        free = np.array([not named_options(prompt, self._vectors.words) for prompt in prompts])
        options = np.full(len(found), -1)
        if isinstance(self._shares, Balance):
            options[free] = self._order[self._shares.assign(found[free][:, self._order], self._rng)]
        else:
            groups = np.unique(np.array(prompts)[free], return_inverse=True)[1]
            shares = [self._shares[name] for name in self._vectors.options]
            options[free] = least_change_by_prompt(groups.tolist(), found[free], shares, seed=0)
        return options

    def end_run(self, clock: StepClock) -> None:
        """Count the images of a run that ended well."""
        if self._pending is None:
            return
        options, look = self._pending
        if isinstance(self._shares, Balance):
            self._shares.count(self._order.argsort()[options])
        self.looks.append(look)
        self._pending = None


def check_look(look: int | str, readers: Sequence[Reader]) -> None:
    """Raise ValueError for a look that no run can have, and for readers that are missing or not good enough for it."""
    if look == "auto" or not readers:
        reader_for(readers, "auto", [reader.noise_level for reader in readers])
    elif isinstance(look, bool) or not isinstance(look, Integral) or look < 1:
        raise ValueError(f'look={look!r}: give a number of steps, 1 or more, or "auto".')


def reader_after(readers: Sequence[Reader], look: int | str, first: int, levels: Sequence[float]) -> tuple[int, Reader]:
    """Return after how many steps of a run to read, behind its first steered one, and what reads the last of them."""
    if not isinstance(look, str) and look <= first:
        raise ValueError(
            f"look={look} ends before steering begins, at step {first}, so that there is nothing to rewind: "
            f"look at {first + 1} steps or more, or let the window begin earlier."
        )
    return reader_for(readers, look, levels, first)


def alphas_of(options: Ints, strength: Strength, own: Floats | None) -> Floats:
    """Return the alpha of each image [n], or one for all [1]; own: [options], where each option has its own.

    Raises ValueError for another number of alphas than of images.
    """
    if own is not None:
        return own[options]
    given = np.array(strength.alpha, np.float64).reshape(-1)
    if len(given) not in (1, len(options)):
        raise ValueError(f"{len(given)} alphas were given for {len(options)} image(s).")
    return given


def _order(shares: Mapping[str, float] | Balance, options: Sequence[str]) -> Ints:
    """Return the vectors' option at each place of the shares [options]; raises ValueError for other ones."""
    names = list(shares.shares if isinstance(shares, Balance) else checked_shares(shares))
    if set(names) != set(options):
        raise ValueError(
            f"shares of {', '.join(map(str, names))}: give one for each of {', '.join(options)}, and no other."
        )
    return np.array([list(options).index(name) for name in names])
