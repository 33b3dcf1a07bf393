"""Denoising runs that end before their last step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.wrapping import wrapped


class _EnoughError(Exception):
    """Ends a run from within."""


@contextmanager
def ended_after(backbone: Backbone, clock: StepClock, num_steps: int) -> Iterator[None]:
    """End the run in the context after so many steps, with whatever is made of its latents."""

    def stepping(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        if clock.step >= num_steps:
            raise _EnoughError
        return result

    with suppress(_EnoughError), wrapped(backbone.pipe.scheduler, "step", stepping):
        yield
    backbone.pipe.maybe_free_model_hooks()
