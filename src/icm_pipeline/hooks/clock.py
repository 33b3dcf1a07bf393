"""Which denoising step a pipeline is at, and how much noise its latents have."""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from icm_pipeline.backbones.base import BackboneError, Call
from icm_pipeline.hooks.wrapping import wrapped


class StepClock:
    """Where the pipeline is: which step of which run, and what the denoiser's current call is."""

    def __init__(self, num_images: int | None = None) -> None:
        self.num_images = num_images
        """The current batch's size, which the pipeline tells when it prepares latents; None where it is not known."""
        self.num_calls = 0
        """How often the denoiser ran since the clock was made."""
        self.run = 0
        """How often the scheduler was set up since the clock was made."""
        self.reached: set[str] = set()
        """The layers that a hook was shown in this pass."""
        self.call: Call | None = None
        self.rows: slice | None = slice(0, None)
        """The conditional rows of the call; None if it has none."""
        self.start([1.0])

    def start(self, levels: Sequence[float], steps: Sequence[int] | None = None) -> None:
        """Begin a run whose passes have these noise levels; if no steps are given, passes at one level are one step."""
        self._levels, self.steps = list(levels), step_numbers(levels) if steps is None else list(steps)
        self.num_steps = self.steps[-1] + 1
        self.reached.clear()
        self.calls_in_run = 0
        self.stand_at(0)

    def stand_at(self, number: int) -> None:
        """Stand at a pass of this run, counted from 0; after the last one the clock stays there."""
        self.num_passes, self.calls_in_pass = number, 0
        reached = min(number, len(self.steps) - 1)
        self.step, self.noise_level = self.steps[reached], self._levels[reached]  # hooks read them at every layer

    def begin_call(self, call: Call, rows: slice | None) -> None:
        """Note what the denoiser is about to be called with."""
        self.call, self.rows = call, rows
        self.num_calls += 1
        self.calls_in_run += 1
        self.calls_in_pass += 1


def drive(pipe: Any, clock: StepClock, expected: int | None, before_run: Callable[[], None], stack: ExitStack) -> None:
    """Let the scheduler drive the clock and the pipeline tell its number of images, while the stack lasts.

    before_run is called when the next run begins.
    """

    def starting(set_timesteps: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before_run()
        result = set_timesteps(*args, **kwargs)
        levels = noise_levels(pipe.scheduler)
        clock.start(levels, _steps_by_midpoints(levels) if _has_midpoints(pipe.scheduler) else None)
        clock.run += 1
        return result

    def advancing(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        clock.stand_at(clock.num_passes + 1)
        if clock.num_passes >= len(clock.steps):  # the run is over, and the next one's pipeline tells its own
            clock.num_images = expected
        return result

    def preparing(prepare_latents: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = prepare_latents(*args, **kwargs)
        latents = result[0] if isinstance(result, tuple) else result
        if expected is not None and len(latents) != expected:
            raise BackboneError(f"{expected} image(s) were expected and the pipeline makes {len(latents)}.")
        clock.num_images = len(latents)
        return result

    stack.enter_context(wrapped(pipe.scheduler, "set_timesteps", starting))
    stack.enter_context(wrapped(pipe.scheduler, "step", advancing))
    stack.enter_context(wrapped(pipe, "prepare_latents", preparing))


def noise_levels(scheduler: Any) -> list[float]:
    """Return the noise level of every timestep that a scheduler is set to, one per pass of the pipeline's loop.

    A level is the share of noise in the standard deviation: sqrt(1 - alpha_bar) in DDPM's notation,
    sigma / sqrt(sigma^2 + (1 - sigma)^2) for flow matching; 1 is pure noise. It compares schedules of all kinds and
    lengths by their signal-to-noise ratio. Raises BackboneError for a scheduler that says neither sigmas nor alphas.
    """
    timesteps = [float(t) for t in scheduler.timesteps]
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) >= len(timesteps):
        noise = [float(sigma) for sigma in sigmas[: len(timesteps)]]
        if _has_midpoints(scheduler):
            noise[1::2] = [float(sigma) for sigma in scheduler.sigmas_interpol[1 : len(timesteps) : 2]]
        signal = [1 - sigma for sigma in noise] if _is_flow(scheduler) else [1.0] * len(noise)
        return [s / math.hypot(s, a) for s, a in zip(noise, signal, strict=True)]
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None:
        raise BackboneError(f"{type(scheduler).__name__} does not say how much noise its timesteps have.")
    return [math.sqrt(max(0.0, 1 - float(alphas[int(t)]))) for t in timesteps]


def _has_midpoints(scheduler: Any) -> bool:
    """Say whether every second pass is made between two noise levels, as KDPM2's."""
    return "KDPM2DiscreteScheduler" in (base.__name__ for base in type(scheduler).__mro__)


def _steps_by_midpoints(levels: Sequence[float]) -> list[int]:
    """Return the step of each pass where a midpoint belongs to the step it leads to."""
    return [(i + 1) // 2 for i in range(len(levels))]


def _is_flow(scheduler: Any) -> bool:
    says, name = scheduler.config.get, type(scheduler).__name__
    return bool(name.startswith("FlowMatch") or says("use_flow_sigmas") or says("prediction_type") == "flow_prediction")


def step_numbers(levels: Sequence[float]) -> list[int]:
    """Return which denoising step each pass of a loop belongs to: passes at one noise level are one step.

    PNDM repeats its second timestep and Heun calls the denoiser twice at every level but the first.
    """
    numbers = [0] if levels else []
    for before, level in itertools.pairwise(levels):
        numbers.append(numbers[-1] + (level != before))
    return numbers
