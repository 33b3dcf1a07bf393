"""Denoising runs that end before their last step, and what a module is given in the first."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from torch import nn

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.wrapping import wrapped

T = TypeVar("T")


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


def given_first(
    backbone: Backbone, module: nn.Module, jobs: list[Job], take: Callable[[tuple[Any, ...], dict[str, Any], slice], T]
) -> T:
    """Return what is taken of a module's inputs, args and kwargs, in a run's first call with conditional rows."""
    seen = list[T]()
    with hooked(backbone, [], None, len(jobs)) as clock:

        def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if clock.rows is not None and not seen:
                seen.append(take(args, kwargs, clock.rows))

        handle = module.register_forward_pre_hook(look, with_kwargs=True)
        try:
            with ended_after(backbone, clock, 1):
                denoise(backbone, jobs)
        finally:
            handle.remove()
    return seen[0]
