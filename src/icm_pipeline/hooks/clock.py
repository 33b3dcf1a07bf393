"""Which denoising step a pipeline is at, and how much noise its latents have."""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import BackboneError, Call
from icm_pipeline.hooks.repeats import Schedule, repeats_of
from icm_pipeline.hooks.wrapping import wrapped

PREPARE = ("prepare_latents", "prepare_intermediate_images")  # a pipeline's method whose result has its images


class StepClock:
    """Where the pipeline is: which step of which run, and what the denoiser's current call is.

    Steps are counted in the whole schedule that the scheduler was set to, also where a run begins or ends midway.
    """

    def __init__(self, num_images: int | None = None) -> None:
        self.num_images = num_images
        """The current batch's size, which the pipeline tells when it prepares latents; None where it is not known."""
        self.num_calls = 0
        """How often the denoiser ran since the clock was made."""
        self.run = 0
        """How often the scheduler was set up since the clock was made."""
        self.reached: set[str] = set()
        """The layers that a hook was shown in this pass."""
        self.ran: set[int] = set()
        """The steps that the denoiser ran in, in this run."""
        self.call: Call | None = None
        self.rows: slice | None = slice(0, None)
        """The conditional rows of the call; None if it has none."""
        self.images: tuple[int, ...] | None = None
        """The images of the batch that the call has rows of; None for all."""
        self.predictions: list[str] = []
        """What a guider calls the predictions of this pass, in the order of their calls; empty where there is none."""
        self.is_counted = False
        """Whether the number of images is that of the rows of a call, as in a modular pipeline."""
        self.is_told = False
        """Whether the pipeline has told the number of images of the run that it is about to begin."""
        self.start([1.0])

    def start(self, levels: Sequence[float], timesteps: Any = (), steps: Sequence[int] | None = None) -> None:
        """Begin a run whose passes have these timesteps and noise levels.

        If no steps are given, passes at one level are one step.
        """
        self._levels, self.steps = list(levels), step_numbers(levels) if steps is None else list(steps)
        self._timesteps = timesteps
        self._values = timesteps.tolist() if isinstance(timesteps, Tensor) else [float(at) for at in timesteps]
        self.num_steps = self.steps[-1] + 1
        self.reached.clear()
        self.ran.clear()
        self.predictions.clear()
        self.calls_in_run = self.num_passes = 0
        self.is_open = True  # until its end is seen
        self.is_pipelines = False  # whether the pipeline itself makes the run
        self.stand_at(0)

    def stand_at(self, place: int) -> None:
        """Stand at a pass of the schedule, counted from 0; after the last one the step stays the last."""
        self.place, self.calls_in_pass = place, 0
        self._latents: Tensor | None = None  # of the pass's first call
        reached = min(place, len(self.steps) - 1)
        self.step, self.noise_level = self.steps[reached], self._levels[reached]  # hooks read them at every layer

    def place_of(self, timestep: Any) -> int:
        """Return the pass of a timestep, this one if it is the same; raises BackboneError for one of another schedule.

        A view of the scheduler's timesteps tells its place without waiting for the device.
        """
        base, allowed = self._timesteps, 1e-6
        if isinstance(timestep, Tensor):
            if isinstance(base, Tensor) and timestep.untyped_storage().data_ptr() == base.untyped_storage().data_ptr():
                return int(timestep.storage_offset() - base.storage_offset()) // max(1, base.stride(0))
            if timestep.is_floating_point():  # scaled there and back
                allowed += torch.finfo(timestep.dtype).eps * max(map(abs, self._values), default=0)
            timestep = timestep.flatten()[0]
        value = float(timestep)
        off = [abs(at - value) for at in self._values]
        if not off or min(off) > allowed:
            raise BackboneError(f"Timestep {value:g} is none of the {len(off)} that the scheduler is set to.")
        return self.place if self.place < len(off) and off[self.place] <= allowed else off.index(min(off))

    def begin_call(
        self, call: Call, rows: slice | None, latents: Tensor | None = None, images: tuple[int, ...] | None = None
    ) -> None:
        """Note what the denoiser is about to be called with."""
        if self.calls_in_run == 0:
            self.is_pipelines, self.is_told = self.is_told, False
        self.call, self.rows, self.images = call, rows, images
        self.num_calls += 1
        self.calls_in_run += 1
        self.calls_in_pass += 1
        self.ran.add(self.step)
        if self._latents is None:
            self._latents = latents

    def repeats(self, latents: Tensor) -> bool:
        """Say whether the first call of this pass had the same latents."""
        return self._latents is latents

    def advance(self, place: int) -> None:
        """Go on to the pass after one that the scheduler has stepped."""
        self.num_passes += 1
        self.predictions.clear()
        self.stand_at(place + 1)

    def count_rows(self, num_rows: int) -> int:
        """Take the rows of a call for the images of this run, and return how many."""
        self.num_images, self.is_counted = num_rows, True
        return num_rows

    def tell_predictions(self, names: Sequence[str]) -> None:
        """Note what the next calls of this pass are for."""
        self.predictions[self.calls_in_pass :] = names

    @property
    def prediction(self) -> str | None:
        """What the call that is about to begin is for; raises BackboneError for one more than a guider has named."""
        if not self.predictions:
            return None
        if self.calls_in_pass >= len(self.predictions):
            raise BackboneError(
                f"The denoiser ran {self.calls_in_pass + 1} times in a step that its guider divides into "
                f"{len(self.predictions)} predictions, so what the last call is for is not known."
            )
        return self.predictions[self.calls_in_pass]


def drive(pipe: Any, clock: StepClock, expected: int | None, end_run: Callable[[bool], None], stack: ExitStack) -> None:
    """Let the scheduler drive the clock and the pipeline tell its number of images, while the stack lasts.

    end_run is called when the pipeline has ended a run, with True, and when the next run begins.
    """

    def starting(set_timesteps: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        end_run(False)
        result = set_timesteps(*args, **kwargs)
        clock.start(*schedule_of(pipe.scheduler))
        clock.run += 1
        if not clock.is_told:  # what was told of a run before does not hold for this one
            clock.num_images, clock.is_counted = expected, False
        return result

    def advancing(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        timestep = args[1] if len(args) > 1 else kwargs.get("timestep")
        place = clock.place if timestep is None else clock.place_of(timestep)
        if clock.calls_in_pass and place != clock.place:
            raise BackboneError(
                f"The scheduler steps at pass {place} of {len(clock.steps)}, and the denoiser ran for pass "
                f"{clock.place}. Call set_timesteps before each run, and denoise several images in one batch or in "
                "runs of their own."
            )
        if clock.is_counted:
            _check_rows(clock, args[2] if len(args) > 2 else kwargs.get("sample"))
        result = step(*args, **kwargs)
        clock.advance(place)
        return result

    def preparing(prepare_latents: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = prepare_latents(*args, **kwargs)
        latents = result[0] if isinstance(result, tuple) else result
        if expected is not None and len(latents) != expected:
            raise BackboneError(f"{expected} image(s) were expected and the pipeline makes {len(latents)}.")
        clock.num_images, clock.is_told = len(latents), True
        return result

    def ending(free: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = free(*args, **kwargs)
        if (clock.is_pipelines or clock.is_told) and not getattr(pipe, "_interrupt", False):
            clock.is_told = False
            end_run(True)
        return result

    stack.enter_context(wrapped(pipe.scheduler, "set_timesteps", starting))
    stack.enter_context(wrapped(pipe.scheduler, "step", advancing))
    for name in PREPARE:
        if hasattr(pipe, name):
            stack.enter_context(wrapped(pipe, name, preparing))
    if hasattr(pipe, "maybe_free_model_hooks"):  # what every call of a pipeline ends with that is not modular
        stack.enter_context(wrapped(pipe, "maybe_free_model_hooks", ending))


def _check_rows(clock: StepClock, sample: Any) -> None:
    """Raise BackboneError if the calls that a step was made of had another number of rows than it has images."""
    if isinstance(sample, Tensor) and len(sample) != clock.num_images:
        raise BackboneError(
            f"The denoiser of a modular pipeline ran on {clock.num_images} rows, each taken for an image, and the "
            f"scheduler steps {len(sample)} image(s): let a guider divide a step into predictions, or give num_images."
        )


def schedule_of(scheduler: Any) -> Schedule:
    """Return the passes that a pipeline's loop will take of the timesteps that its scheduler has just been set to."""
    repeats = repeats_of(scheduler)
    if repeats is not None and repeats.is_shown and repeats.schedule is not None:
        return repeats.schedule
    levels = noise_levels(scheduler)
    steps = _steps_by_midpoints(levels) if _has_midpoints(scheduler) else step_numbers(levels)
    plain = Schedule(levels, scheduler.timesteps, steps)
    return plain if repeats is None else repeats.extend(plain)


def noise_levels(scheduler: Any) -> list[float]:
    """Return the noise level of every timestep that a scheduler is set to, one per pass of the pipeline's loop.

    A level is the share of noise in the standard deviation: sqrt(1 - alpha_bar) in DDPM's notation,
    sigma / sqrt(sigma^2 + (1 - sigma)^2) for flow matching, sin(t) for TrigFlow, whose last timestep is no pass; 1 is
    pure noise. It compares schedules of all kinds and lengths by their signal-to-noise ratio. Raises BackboneError for
    a scheduler that says neither sigmas nor alphas.
    """
    timesteps = [float(t) for t in scheduler.timesteps]
    if type(scheduler).__name__ == "SCMScheduler":
        return [math.sin(t) for t in timesteps[:-1]]
    if type(scheduler).__name__ == "DDPMWuerstchenScheduler":  # whose last timestep is no pass either
        return [math.sqrt(1 - float(scheduler._alpha_cumprod(t, "cpu"))) for t in scheduler.timesteps[:-1]]
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) >= len(timesteps):
        noise = [float(sigma) for sigma in sigmas[: len(timesteps)]]
        if _has_midpoints(scheduler):
            noise[1::2] = [float(sigma) for sigma in scheduler.sigmas_interpol[1 : len(timesteps) : 2]]
        # Cosmos gives a flow's scheduler sigmas up to 80, which are added to the picture: x + sigma e.
        is_between = is_flow(scheduler) and max(noise, default=0) < 2
        signal = [1 - sigma for sigma in noise] if is_between else [1.0] * len(noise)
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


def is_flow(scheduler: Any) -> bool:
    """Say whether a scheduler's latents go straight from noise to picture: (1 - sigma) x + sigma e."""
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
