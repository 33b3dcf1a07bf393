"""Samplers by name, each set up from the configuration of the scheduler that a pipeline came with."""

import itertools
import math
from typing import Any

from icm_pipeline.backbones.base import BackboneError

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
    "flow_euler": "FlowMatchEulerDiscreteScheduler",
}


def use_scheduler(pipe: Any, name: str | None) -> None:
    """Give a pipeline the named scheduler; None keeps its own. Raises BackboneError listing the names."""
    if name is None:
        return
    if name not in SCHEDULERS:
        raise BackboneError(f"model.scheduler={name} is not known. Choose one of: {', '.join(SCHEDULERS)}, or null.")
    import diffusers  # seconds, which a run that finds everything done would wait for

    more = {"skip_prk_steps": True} if name == "pndm" else {}  # as Stable Diffusion's own: one call a step
    pipe.scheduler = getattr(diffusers, SCHEDULERS[name]).from_config(pipe.scheduler.config, **more)


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
        signal = [1 - sigma for sigma in noise] if _is_flow(scheduler) else [1.0] * len(noise)
        return [s / math.hypot(s, a) for s, a in zip(noise, signal, strict=True)]
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None:
        raise BackboneError(f"{type(scheduler).__name__} does not say how much noise its timesteps have.")
    return [math.sqrt(max(0.0, 1 - float(alphas[int(t)]))) for t in timesteps]


def _is_flow(scheduler: Any) -> bool:
    config = scheduler.config
    return type(scheduler).__name__.startswith("FlowMatch") or bool(
        config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    )


def step_numbers(levels: list[float]) -> list[int]:
    """Return which denoising step each pass of a loop belongs to: passes at one noise level are one step.

    PNDM repeats its second timestep and Heun calls the denoiser twice at every level but the first.
    """
    numbers = [0] if levels else []
    for before, level in itertools.pairwise(levels):
        numbers.append(numbers[-1] + (level != before))
    return numbers
