"""Gradients of finished images by what predicted them, step by step: latents are detached before every prediction.

A first run predicts without gradients and keeps its predictions as leaves, of which its final latents are a function of
the scheduler's alone. Those whose gradient is wanted are then predicted again. In the text encoders gradients are kept
from the start. As a scheduler multiplies each prediction by a number of its own, the steps' gradients are brought to
one length, their geometric mean, which is what the published factor sqrt(abar) sqrt(1 - abar) / (1 - alpha) does.

References:
    Finetuning Text-to-Image Diffusion Models for Fairness (adjusted direct finetuning), 2024,
    https://arxiv.org/abs/2311.07604, section 4.2
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import pipeline_arguments
from icm_pipeline.hooks.wrapping import wrapped


@dataclass(frozen=True)
class SampledRun:
    """A batch that was denoised."""

    latents: Tensor
    """[n, ...], a function of the predictions."""
    predictions: list[Tensor]
    """What the denoiser gave in each of its calls, leaves."""
    calls: list[Callable[[], Tensor]]
    """They predict the same again, with gradients."""


def run_sampled(backbone: Backbone, jobs: list[Job]) -> SampledRun:
    """Denoise a batch so that gradients of its final latents can be had."""
    pipe, predictions, calls = backbone.pipe, list[Tensor](), list[Callable[[], Tensor]]()
    signature = inspect.signature(backbone.denoiser.forward)

    def forward(predict: Any, *args: Any, **kwargs: Any) -> Any:
        latents = backbone.family.describe(pipe, args, kwargs).latents
        given = signature.bind(*args, **kwargs).arguments
        inputs = {name: value.detach() if value is latents else value for name, value in given.items()}
        with torch.no_grad():
            result = predict(**inputs)
        predictions.append(result[0].detach().requires_grad_())
        calls.append(lambda: predict(**inputs)[0])
        return (predictions[-1], *result[1:])

    plain = inspect.unwrap(type(pipe).__call__)  # without the torch.no_grad() around it
    with torch.enable_grad(), wrapped(backbone.denoiser, "forward", forward):
        latents = plain(pipe, **pipeline_arguments(backbone, jobs))[0]
    return SampledRun(latents, predictions, calls)


def adjusted(run: SampledRun, loss: Tensor, steps: Sequence[int]) -> Tensor:
    """Return a number whose gradient is the loss's, with an equal share of every step, of some steps for all."""
    gradients = torch.autograd.grad(loss, run.predictions)
    lengths = torch.stack([torch.linalg.vector_norm(each.float()) for each in gradients]).clamp_min(1e-30)
    factors = lengths.log().mean().exp() / lengths * len(gradients) / len(steps)
    parts = [
        (checkpoint(run.calls[step], use_reentrant=False) * (factors[step] * gradients[step])).sum() for step in steps
    ]
    return torch.stack(parts).sum()


class _LowRank(nn.Module):
    def __init__(self, down: Tensor, up: Tensor, scale: Callable[[], float]) -> None:
        super().__init__()
        self._factors, self._scale = (up, down), scale  # not parameters: the layer does not own them

    def forward(self, weight: Tensor) -> Tensor:
        up, down = self._factors
        return weight + (self._scale() * up @ down).to(weight)


def new_factors(layers: Mapping[str, nn.Linear], rank: int, seed: int) -> dict[str, Tensor]:
    """Return factors of low rank by `<layer>/down` [rank, in] and `<layer>/up` [out, rank], that change nothing yet."""
    generator, found = torch.Generator().manual_seed(seed), dict[str, Tensor]()
    for name, layer in layers.items():
        down = torch.randn(rank, layer.in_features, generator=generator) / layer.in_features**0.5
        for part, factor in (("down", down), ("up", torch.zeros(layer.out_features, rank))):
            found[f"{name}/{part}"] = factor.to(layer.weight.device).requires_grad_()
    return found


@contextmanager
def low_rank(
    layers: Mapping[str, nn.Linear], factors: Mapping[str, Tensor], scale: Callable[[], float]
) -> Iterator[None]:
    """Let layers have weights W + scale up down while the context lasts, and their own again after an exception too."""
    with ExitStack() as stack:
        for name, layer in layers.items():
            down, up = (factors[f"{name}/{part}"].to(layer.weight.device) for part in ("down", "up"))
            parametrize.register_parametrization(layer, "weight", _LowRank(down, up, scale), unsafe=True)
            stack.callback(parametrize.remove_parametrizations, layer, "weight", leave_parametrized=False)
        yield
