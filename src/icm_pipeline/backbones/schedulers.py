"""Samplers by name, each set up from the configuration of the scheduler that a pipeline came with."""

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
