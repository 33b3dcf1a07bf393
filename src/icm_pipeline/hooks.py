"""The only place that registers a hook: show a hook the conditional image tokens of some layers, step by step.

One StepClock per run owns the step. It is driven by the scheduler, whose `set_timesteps` starts it and whose `step`
advances it, because timesteps repeat (PNDM), are called more than once (Heun) and are scaled differently from model to
model, and because some schedulers have no step index.
"""

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone, BackboneError, Site


class StepClock:
    """Which denoising step the pipeline is at: `step` counts from 0, `num_images` is the current batch's size."""

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images
        self.step = 0
        self.num_calls = 0
        self.rows = slice(0, None)
        self.num_rows = 0


class Hook(Protocol):
    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        """Look at tokens [n, s, d] of the conditional rows; return None, or new tokens of the same shape."""


@contextmanager
def hooked(backbone: Backbone, layers: list[str], hook: Hook, num_images: int) -> Iterator[StepClock]:
    """Call `hook` with the conditional image tokens of every named layer while the context lasts.

    Everything registered or wrapped is taken off again on exit, after an exception too.
    """
    clock = StepClock(num_images)
    with ExitStack() as stack:
        stack.enter_context(_driving(backbone.pipe.scheduler, clock))

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            sample = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
            if not isinstance(sample, Tensor):
                raise BackboneError(f"{type(module).__name__} was called without a sample tensor.")
            clock.num_calls += 1
            clock.num_rows = len(sample)
            clock.rows = backbone.conditional_rows(len(sample), clock.num_images, backbone.guided)

        stack.callback(backbone.denoiser.register_forward_pre_hook(before, with_kwargs=True).remove)
        for layer in layers:
            site = backbone.site(layer)
            handle = backbone.module(site).register_forward_hook(_forward_hook(backbone, site, hook, clock))
            stack.callback(handle.remove)
        yield clock


def _forward_hook(backbone: Backbone, site: Site, hook: Hook, clock: StepClock) -> Any:
    def after(module: nn.Module, args: Any, output: Any) -> Any:
        tokens = backbone.read(output, site)
        if len(tokens) != clock.num_rows:
            raise BackboneError(f"{site.layer} gave {len(tokens)} rows where the denoiser has {clock.num_rows}.")
        changed = hook(tokens[clock.rows], site, clock)
        if changed is None:
            return None
        whole = torch.cat([tokens[: clock.rows.start], changed]) if clock.rows.start else changed
        return backbone.write(output, whole, site)

    return after


@contextmanager
def _driving(scheduler: Any, clock: StepClock) -> Iterator[None]:
    """Let the scheduler drive the clock; `functools.wraps` keeps the signatures that pipelines inspect."""
    set_timesteps, step = scheduler.set_timesteps, scheduler.step
    own = {name: vars(scheduler)[name] for name in ("set_timesteps", "step") if name in vars(scheduler)}

    @functools.wraps(set_timesteps)
    def starting(*args: Any, **kwargs: Any) -> Any:
        clock.step = 0
        return set_timesteps(*args, **kwargs)

    @functools.wraps(step)
    def advancing(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        clock.step += 1
        return result

    scheduler.set_timesteps, scheduler.step = starting, advancing
    try:
        yield
    finally:
        del scheduler.set_timesteps, scheduler.step
        vars(scheduler).update(own)  # wrappers that were there before, as of an outer hooked()
