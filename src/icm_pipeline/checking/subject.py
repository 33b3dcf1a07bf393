"""A pipeline with what was measured of it before anything was hooked."""

from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, Site
from icm_pipeline.checking.calling import NUM_IMAGES, OTHERS, PROMPTS, Caller
from icm_pipeline.checking.watching import by_step, first_of, num_text_tokens, watched
from icm_pipeline.hooks.clock import PREPARE, StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.methods.vectors import SteeringVectors


class Subject:
    """A pipeline with what was measured of it before anything was hooked."""

    def __init__(self, backbone: Backbone, caller: Caller) -> None:
        self.backbone, self.caller = backbone, caller
        with watched(backbone.denoiser) as calls:
            self.plain = caller.make()
        first_call = first_of(calls, backbone.denoiser)
        said = backbone.family.described(backbone.pipe, first_call.args, first_call.kwargs)
        self.num_image_tokens, self.num_text_tokens = said.num_image_tokens, num_text_tokens(first_call)
        """Of a UNet None."""
        with watched(backbone.denoiser) as others:
            caller.make(OTHERS)
        with watched(backbone.denoiser) as first:
            caller.make((OTHERS[0], PROMPTS[1]))
        self.by_prompt = by_step(calls, others, caller.num_steps)
        """The rows of each call of the first step that follow the prompts."""
        self.by_first = by_step(calls, first, caller.num_steps)
        """Those that follow the first prompt."""

    def hooked(self, layers: list[str], hook: Any) -> Any:
        """Enter `hooked`; a pipeline that prepares latents in its call itself is told how many images it makes."""
        tells = any(hasattr(self.backbone.pipe, name) for name in PREPARE)
        return hooked(self.backbone, layers, hook, None if tells else NUM_IMAGES)

    def conditional(self) -> list[list[int]]:
        """Return the conditional rows of each call of the first step: of those that follow the prompt the first."""
        return [rows[:NUM_IMAGES] if self.backbone.family.rows == "perturbed" else rows for rows in self.by_prompt]

    def modules(self, layers: list[str]) -> dict[str, Any]:
        return {layer: self.backbone.denoiser.get_submodule(self.backbone.site(layer).module) for layer in layers}

    def vectors(self) -> SteeringVectors:
        """Return random directions for two options of every layer, at every step."""
        recorder, layers = Recorder(list(range(self.caller.num_steps))), self.backbone.layers
        with self.hooked(layers, recorder):
            self.caller.make()
        recording, generator = recorder.recording(), torch.Generator().manual_seed(0)
        directions = {
            layer: torch.randn(len(recording.steps), 2, means.shape[-1], generator=generator)
            for layer, means in recording.activations.items()
        }
        norms = {layer: means.norm(dim=-1).mean(0) for layer, means in recording.activations.items()}
        return SteeringVectors(
            directions, norms, tuple(recording.steps), tuple(recording.noise_levels), ("a", "b"), "checked", "letter"
        )


def look(tokens: Tensor, site: Site, clock: StepClock) -> None:
    return None


def close(a: Tensor, b: Tensor, count: int | None = None) -> bool:
    """Say whether two rows are equal but for rounding; count: of tokens, behind which reference pictures stand."""
    if count and a.dim() == 2:
        a, b = a[:count], b[:count]
    return torch.allclose(a, b, rtol=0, atol=torch.finfo(a.dtype).eps ** 0.5 * float(b.abs().max()))


def spans(calls: list[list[int]]) -> str:
    return "; then ".join(map(span, calls)) or "no call"


def span(rows: list[int]) -> str:
    if len(rows) < 2:
        return f"row {rows[0]}" if rows else "no row"
    return f"rows {rows[0]} to {rows[-1]}" if rows == list(range(rows[0], rows[-1] + 1)) else f"rows {rows}"
