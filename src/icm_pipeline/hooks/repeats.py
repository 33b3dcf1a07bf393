"""Passes that a pipeline's own loop is made to take twice, so that a run can be rewound inside one call.

From `set_timesteps` until the loop has taken it, the scheduler's `timesteps` is a longer tensor. It is put back before
the scheduler looks a timestep up in it: of two equal ones some schedulers take the second.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.hooks.wrapping import wrapped

LOOKED_UP_BEFORE = ("add_noise", "scale_noise")  # where a run begins from a picture, before the loop


class Schedule(NamedTuple):
    """The passes of a pipeline's loop, in order."""

    levels: list[float]
    """The noise level of each."""
    timesteps: Tensor
    steps: list[int]
    """The step that each belongs to."""

    def level_of(self, step: int) -> float:
        """Return the noise level of a step's last pass."""
        return self.levels[len(self.steps) - 1 - self.steps[::-1].index(step)]


class Repeats:
    """Which passes of a scheduler's runs are taken twice: those of some steps, again when the last of them is done."""

    def __init__(self, scheduler: Any, span: Callable[[Schedule], range]) -> None:
        self._scheduler, self._span = scheduler, span
        self._true: Tensor | None = None
        self.num_before = 0
        """The passes until the first repeated one."""
        self.num_repeated = 0
        self.schedule: Schedule | None = None
        """That of the present run, with the repeated passes."""

    @property
    def is_shown(self) -> bool:
        """Say whether the scheduler shows the longer tensor."""
        return self.schedule is not None and self._scheduler.timesteps is self.schedule.timesteps

    def extend(self, plain: Schedule) -> Schedule:
        """Show the loop of a new run its passes, some of them twice; raises what `span` does."""
        steps = self._span(plain)
        begin, end = plain.steps.index(steps.start), len([step for step in plain.steps if step < steps.stop])
        self.num_before, self.num_repeated, self._true = end, end - begin, plain.timesteps
        order = [*range(end), *range(begin, len(plain.steps))]
        timesteps = torch.cat([plain.timesteps[:end], plain.timesteps[begin:]])
        self.schedule = Schedule([plain.levels[i] for i in order], timesteps, [plain.steps[i] for i in order])
        self._scheduler.timesteps = timesteps
        return self.schedule

    def restore(self) -> None:
        """Let the scheduler have its own timesteps."""
        if self.is_shown:
            self._scheduler.timesteps = self._true

    def around_lookup(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of the scheduler with its own timesteps, before the loop has taken those it is to run."""
        is_shown = self.is_shown
        self.restore()
        try:
            return method(*args, **kwargs)
        finally:
            if is_shown and self.schedule is not None:
                self._scheduler.timesteps = self.schedule.timesteps

    def around_pass(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call what a pass of the loop begins with: the loop has taken its timesteps."""
        self.restore()
        return method(*args, **kwargs)


_repeats: WeakKeyDictionary[Any, Repeats] = WeakKeyDictionary()  # by scheduler


def repeats_of(scheduler: Any) -> Repeats | None:
    return _repeats.get(scheduler)


@contextmanager
def repeated(scheduler: Any, span: Callable[[Schedule], range]) -> Iterator[Repeats]:
    """Have every run's steps of `span` taken twice while the context lasts; one such context at a time.

    span: from a run's passes to the steps that are repeated, from the first to before the end of what comes before.
    """
    if scheduler in _repeats:
        raise BackboneError("This pipeline is in a context with look= already: one run is rewound for one choice.")
    repeats = Repeats(scheduler, span)
    with ExitStack() as stack:
        for name in LOOKED_UP_BEFORE:
            if hasattr(scheduler, name):
                stack.enter_context(wrapped(scheduler, name, repeats.around_lookup))
        if hasattr(scheduler, "scale_model_input"):
            stack.enter_context(wrapped(scheduler, "scale_model_input", repeats.around_pass))
        stack.callback(repeats.restore)
        stack.callback(_repeats.pop, scheduler, None)
        _repeats[scheduler] = repeats
        yield repeats
