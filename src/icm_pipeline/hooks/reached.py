"""Whether every layer runs in every step: one that is replaced, or skipped by a cache, would be left out in silence."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from weakref import WeakSet

from torch import nn

from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.wrapping import wrapped

_replayed: WeakSet[nn.Module] = WeakSet()  # denoisers whose present call is answered from memory


def note_computed(denoiser: nn.Module, computed: bool) -> None:
    """Say whether the denoiser's present call is computed; one that is answered from memory reaches no layer."""
    (_replayed.discard if computed else _replayed.add)(denoiser)


def check_every_step(backbone: Backbone, layers: Sequence[str], clock: StepClock, stack: ExitStack) -> None:
    """Raise BackboneError, while the stack lasts, at the end of a step in which the denoiser ran without a layer.

    A step without this denoiser is another pipeline's, with the same scheduler, unless the denoiser was replaced.
    """
    denoiser, every = backbone.denoiser, frozenset(layers)

    def ending(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        missed = every - clock.reached
        replaced = backbone.denoiser is not denoiser
        if missed and (replaced or (clock.calls_in_pass and denoiser not in _replayed)):
            first = next(layer for layer in layers if layer in missed)
            raise BackboneError(
                f"{len(missed)} of {len(every)} layers did not run in step {clock.step} of {backbone.name}, {first} "
                "among them. Does a cache skip it, do fused projections stand in for it, or was the denoiser or a part "
                "of it replaced or compiled meanwhile?"
            )
        clock.reached.clear()
        return step(*args, **kwargs)

    stack.enter_context(wrapped(backbone.pipe.scheduler, "step", ending))
