"""What a denoiser predicts outside of the pipeline's own loop: of latents at steps of their own, under any prompts.

A pipeline that runs tells what its denoiser is called with: the inputs that a prompt makes, the timestep and the noise
level of every step. A call with other latents then needs no knowledge of the family. A denoiser takes latents
a x + s e of clean ones x and noise e: a^2 + s^2 = 1, or a + s = 1 where it predicts a flow, whatever its scheduler.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.backbones.modules import is_compiled, uncompiled
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.clock import StepClock, is_flow
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.rows import Rows

FLOW = "flow_prediction"
PREDICTED = ("epsilon", "v_prediction", FLOW)


@dataclass(frozen=True)
class Noisy:
    """Latents as a denoiser takes them, each at a step of its own."""

    latents: Tensor
    """[n, ...]"""
    steps: Tensor
    """The index of each one's step in the sampler's run [n]."""


@dataclass(frozen=True)
class Steps:
    """What was seen of a run, a row for each call of the denoiser with the images' prompts."""

    latents: Tensor
    """[T, n, ...]"""
    timesteps: Tensor
    """As the denoiser takes them [T]."""
    noise_levels: Tensor
    """[T], see `hooks.clock.noise_levels`."""


class _SeenError(Exception):
    """Ends a run from within."""


class Denoiser:
    """A backbone's denoiser under some prompts. Raises ConfigError for one that cannot be trained."""

    def __init__(self, backbone: Backbone, prompts: Sequence[str]) -> None:
        check_trainable(backbone)
        self._module, self._family = uncompiled(backbone.denoiser), backbone.family
        self._row_of = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        self._inputs, self._latents = _inputs_of(backbone, list(self._row_of))
        self._predicts = _predicted(backbone.pipe.scheduler)
        run, _ = seen_run(backbone, [Job("", prompts[0], 0, 0)])
        self._timesteps, levels = run.timesteps, run.noise_levels
        signal, self._noise = (1 - levels.square()).clamp_min(0).sqrt(), levels
        if self._predicts == FLOW:
            signal, self._noise = signal / (signal + levels), levels / (signal + levels)
        self._signal = signal

    @property
    def num_steps(self) -> int:
        return len(self._timesteps)

    def predict(self, noisy: Noisy, prompts: Sequence[str]) -> Tensor:
        """Return what is predicted of each one under its prompt, without guidance, [n, ...] in float32."""
        numbers = [self._row_of[prompt] for prompt in prompts]
        rows = Rows(numbers, len(self._row_of), torch.tensor(numbers))
        inputs = rows.cut(self._inputs, self._family)
        inputs["timestep"] = self._timesteps[noisy.steps].to(noisy.latents.device)
        inputs[self._latents] = noisy.latents.to(next(self._module.parameters()).dtype)
        predicted = self._module(**inputs)[0]
        return predicted[:, : noisy.latents.shape[1]].float()  # PixArt predicts a variance behind it

    def guided(self, noisy: Noisy, prompts: Sequence[str], scale: float) -> Tensor:
        """Return what is predicted with guidance away from the empty prompt, which must be one of the denoiser's."""
        empty = self.predict(noisy, [""] * len(prompts))
        return empty + scale * (self.predict(noisy, prompts) - empty)

    def noised(self, clean: Tensor, noise: Tensor, steps: Tensor) -> Noisy:
        """Return clean latents [n, ...] with the noise of each one's step."""
        a, s = self._factors(clean, steps)
        return Noisy(a * clean + s * noise, steps)

    def target(self, clean: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """Return what a denoiser that knew everything would predict [n, ...]."""
        if self._predicts == FLOW:
            return noise - clean
        a, s = self._factors(clean, steps)
        return noise if self._predicts == "epsilon" else a * noise - s * clean

    def _factors(self, like: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (like.dim() - 1))
        return self._signal[steps].view(shape).to(like), self._noise[steps].view(shape).to(like)


def check_trainable(backbone: Backbone) -> None:
    """Raise ConfigError for a denoiser whose weights are not in memory, or that is compiled."""
    if any(weight.is_meta for weight in backbone.denoiser.parameters()):
        raise ConfigError("Nothing can be trained where compute.offload=sequential keeps weights away: set another.")
    if is_compiled(backbone.denoiser):
        raise ConfigError("A compiled denoiser cannot be adapted: set compute.compile=false.")


def seen_run(backbone: Backbone, jobs: list[Job]) -> tuple[Steps, Tensor]:
    """Make a batch, and return what its denoiser was called with and the final latents [n, ...]."""
    seen = list[tuple[Tensor, Tensor, float]]()

    def see(inputs: dict[str, Any], latents: str, clock: StepClock) -> None:
        assert clock.rows is not None
        timestep = torch.as_tensor(inputs["timestep"]).flatten()[0].detach().cpu()
        seen.append((inputs[latents][clock.rows].detach().clone(), timestep, clock.noise_level))

    with _watched(backbone, see, len(jobs)):
        final = denoise(backbone, jobs)
    latents, timesteps, levels = zip(*seen, strict=True)
    return Steps(torch.stack(latents), torch.stack(timesteps), torch.tensor(levels)), final


def _inputs_of(backbone: Backbone, prompts: list[str]) -> tuple[dict[str, Any], str]:
    """Return the denoiser's inputs by name with a row for each prompt, and which of them is the latents."""
    found = list[tuple[dict[str, Any], str]]()

    def see(inputs: dict[str, Any], latents: str, clock: StepClock) -> None:
        assert clock.rows is not None and clock.call is not None
        numbers = list(range(clock.rows.start, clock.rows.stop))
        rows = Rows(numbers, clock.call.num_rows, torch.tensor(numbers))
        found.append((rows.cut(inputs, backbone.family), latents))
        raise _SeenError

    jobs = [Job(f"{index}", prompt, index, 0) for index, prompt in enumerate(prompts)]
    with suppress(_SeenError), _watched(backbone, see, len(jobs)):
        denoise(backbone, jobs)
    backbone.pipe.maybe_free_model_hooks()
    inputs, latents = found[0]
    return {**inputs, "return_dict": False}, latents


@contextmanager
def _watched(
    backbone: Backbone, see: Callable[[dict[str, Any], str, StepClock], None], num_images: int
) -> Iterator[None]:
    """Show what the denoiser is called with: its inputs by name, and the name of its latents."""
    denoiser, describe = uncompiled(backbone.denoiser), backbone.family.describe
    signature = inspect.signature(denoiser.forward)
    with hooked(backbone, [], None, num_images) as clock:

        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if clock.rows is None:
                return
            inputs, latents = signature.bind(*args, **kwargs).arguments, describe(backbone.pipe, args, kwargs).latents
            see(dict(inputs), next(name for name, value in inputs.items() if value is latents), clock)

        handle = denoiser.register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def _predicted(scheduler: Any) -> str:
    """Return what a scheduler's model predicts, of PREDICTED; raises BackboneError for anything else."""
    found = FLOW if is_flow(scheduler) else scheduler.config.get("prediction_type", "epsilon")
    if found not in PREDICTED:
        raise BackboneError(f"A model that predicts {found!r} cannot be trained; only one of {', '.join(PREDICTED)}.")
    return str(found)
