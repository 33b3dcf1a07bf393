"""Random pipelines that make latents, and vectors of random constant directions for their layers."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

import icm_pipeline
from icm_pipeline.backbones.registry import attach
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers.pipelines import build

NUM_STEPS = 3
UNET_BLOCK = "mid_block.attentions.0.transformer_blocks.0"
# A foldable layer of each kind of output format, in every family that has one.
FOLDABLE = {
    "sd": [f"{UNET_BLOCK}.attn1", f"{UNET_BLOCK}.attn2", f"{UNET_BLOCK}.ff"],
    "sdxl": [f"{UNET_BLOCK}.attn1", f"{UNET_BLOCK}.ff"],
    "sana": ["transformer_blocks.0.attn1", "transformer_blocks.0.attn2"],
    "pixart": ["transformer_blocks.0.attn1", "transformer_blocks.0.ff"],
    "sd3": ["transformer_blocks.0.attn", "transformer_blocks.0.attn2", "transformer_blocks.0.ff"],
    "flux": ["transformer_blocks.0.attn", "transformer_blocks.0.ff"],
}


def quiet(family: str) -> Any:
    """Return a family's random pipeline as `from_pretrained` would: without dropout, without a progress bar."""
    pipe = build(family)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make(pipe: Any, guidance_scale: float = 1.0) -> Tensor:
    """Return the final latents of a plain call."""
    more = {"height": 32, "width": 32} if type(pipe).__name__ == "SanaPipeline" else {"height": 16, "width": 16}
    more |= dict(attach(pipe).family.options)
    return pipe(
        "a face", num_inference_steps=NUM_STEPS, guidance_scale=guidance_scale, output_type="latent",
        generator=torch.Generator().manual_seed(0), **more,
    ).images  # fmt: skip


def constant_vectors(pipe: Any, layers: list[str]) -> SteeringVectors:
    with icm_pipeline.record(pipe, layers=layers) as seen:
        make(pipe)
    recording = seen.recordings[0]
    generator = torch.Generator().manual_seed(0)
    directions = {
        layer: torch.randn(1, 2, pooled.shape[-1], generator=generator).expand(NUM_STEPS, -1, -1)
        for layer, pooled in recording.activations.items()
    }
    return SteeringVectors(
        directions={layer: torch.nn.functional.normalize(values, dim=-1) for layer, values in directions.items()},
        mean_norms={layer: pooled.norm(dim=-1).mean(0) for layer, pooled in recording.activations.items()},
        steps=tuple(recording.steps), noise_levels=tuple(recording.noise_levels), options=("woman", "man"),
        model="random", attribute="gender",
    )  # fmt: skip


@contextmanager
def every_row_shifted(denoiser: torch.nn.Module, shifts: Mapping[str, Tensor]) -> Iterator[None]:
    """Shift every row and token that a module gives by plain hooks, without the code under test."""

    def add(shift: Tensor, module: Any, args: Any, output: Tensor) -> Tensor:
        return output + shift

    with ExitStack() as stack:
        for layer, shift in shifts.items():
            stack.callback(denoiser.get_submodule(layer).register_forward_hook(partial(add, shift)).remove)
        yield


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * float(b.abs().max()))
