"""Runs of the model: plain ones, of which every step is kept, and steered ones that begin where those were steered."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.modules import is_compiled
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.prefixes import PrefixError, kept, replayed, split_calls
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.hooks.wrapping import wrapped

Tell = Callable[[int, int], None]
"""Is told how many of how many steps a run has taken."""


@dataclass(frozen=True)
class Seen:
    """What was recorded of one image's run."""

    activations: Mapping[str, Tensor]
    """{layer: [S, d]}, pooled."""
    noise_levels: tuple[float, ...]
    """Of the S steps."""

    def after(self, earlier: "Seen", first_step: int) -> "Seen":
        """Return these steps after the first ones of another run."""
        both = {
            layer: torch.cat([earlier.activations[layer][:first_step], own]) for layer, own in self.activations.items()
        }
        return Seen(both, (*earlier.noise_levels[:first_step], *self.noise_levels))


@dataclass(frozen=True)
class Run:
    """One image as a run of the model made it."""

    image: Any  # PIL.Image.Image
    seen: Seen | None
    calls: Tensor | None = None
    """What the denoiser returned in every call [calls, rows of the image, ...]; None where that cannot be kept."""
    ends: tuple[int, ...] = ()
    """How many calls there were by the end of each step."""

    def before(self, step: int) -> Tensor | None:
        """Return what the denoiser returned before a step; None if nothing, or if that was not kept."""
        if step == 0 or self.calls is None:
            return None
        return self.calls[: self.ends[step - 1]]


def plain_runs(backbone: Backbone, jobs: list[Job], layers: Sequence[str], tell: Tell) -> list[Run]:
    """Make a batch of images as the model makes them, and keep what each step came to."""
    with ExitStack() as hooks:
        clock = hooks.enter_context(hooked(backbone, [], None, len(jobs)))
        recorder = _recorded(backbone, layers, range(_num_steps(backbone)), len(jobs), hooks)
        calls, ends = list[Tensor](), list[int]()
        if not is_compiled(backbone.denoiser):
            calls = hooks.enter_context(kept(backbone, clock, _num_steps(backbone)))
        hooks.enter_context(_told(backbone, clock, tell, lambda: ends.append(len(calls))))
        latents = denoise(backbone, jobs)
    try:
        outputs: list[Tensor | None] = list(split_calls(calls, len(jobs))) if calls else [None] * len(jobs)
    except PrefixError:
        outputs = [None] * len(jobs)
    images, seen = [sample.image for sample in decode(backbone, jobs, latents)], _seen(recorder, len(jobs))
    return [Run(image, own, output, tuple(ends)) for image, own, output in zip(images, seen, outputs, strict=True)]


def changed_runs(
    backbone: Backbone,
    jobs: list[Job],
    steering: AbstractContextManager[Any],
    originals: Sequence[Run],
    first_step: int,
    layers: Sequence[str],
    tell: Tell,
) -> list[Run]:
    """Make a batch of images in a context that changes them from a step on; until there their originals are replayed.

    Of a layer that is changed what it gives unchanged is recorded.
    """
    prefixes = [prefix for original in originals if (prefix := original.before(first_step)) is not None]
    with ExitStack() as hooks:
        clock = hooks.enter_context(hooked(backbone, [], None, len(jobs)))
        recorder = _recorded(backbone, layers, range(first_step, _num_steps(backbone)), len(jobs), hooks)
        hooks.enter_context(_told(backbone, clock, tell))
        hooks.enter_context(steering)
        if len(prefixes) == len(jobs):
            hooks.enter_context(replayed(backbone, prefixes))
        latents = denoise(backbone, jobs)
    images, seen = [sample.image for sample in decode(backbone, jobs, latents)], _seen(recorder, len(jobs))
    return [
        Run(image, None if own is None or original.seen is None else own.after(original.seen, first_step))
        for image, own, original in zip(images, seen, originals, strict=True)
    ]


def _num_steps(backbone: Backbone) -> int:
    assert backbone.sampling is not None
    return backbone.sampling.num_steps


def _recorded(
    backbone: Backbone, layers: Sequence[str], steps: range, num_images: int, hooks: ExitStack
) -> Recorder | None:
    if not layers:
        return None
    recorder = Recorder(list(steps))
    hooks.enter_context(hooked(backbone.with_layers(layers), layers, recorder, num_images))
    return recorder


def _seen(recorder: Recorder | None, num_images: int) -> list[Seen | None]:
    if recorder is None:
        return [None] * num_images
    found = recorder.recording()
    levels = tuple(found.noise_levels)
    return [
        Seen({layer: own[index] for layer, own in found.activations.items()}, levels) for index in range(num_images)
    ]


@contextmanager
def _told(backbone: Backbone, clock: StepClock, tell: Tell, ended: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Tell of each step when it has ended; one that is made again is not told of again."""
    num_steps, done = _num_steps(backbone), 0

    def stepping(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal done
        result = step(*args, **kwargs)
        reached = clock.num_steps if clock.place >= len(clock.steps) else clock.step
        if reached > done:
            done = reached
            ended()
            tell(done, num_steps)
        return result

    with wrapped(backbone.pipe.scheduler, "step", stepping):
        yield
