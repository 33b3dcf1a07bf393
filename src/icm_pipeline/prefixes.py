"""The unsteered beginning of a denoising run, computed once and said again at no cost.

Until the first steered step a steered run does what the unsteered run of the same seeds does. What the denoiser said in
those steps is kept and returned in its place; everything around it (guidance, scheduler, noise of stochastic samplers)
runs as ever, so that any pipeline and scheduler comes to the same latents.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.hooks import StepClock, wrap_method


class PrefixError(ValueError):
    """Outputs of the denoiser that cannot be kept or put back for this model."""


class Prefix:
    """What the denoiser said for each image of a batch before a step.

    outputs: one tensor [calls, parts, ...] per image, where parts are the rows an image has in a call (two under
    classifier-free guidance).
    """

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        self.outputs = tuple(outputs)

    @classmethod
    def of_calls(cls, calls: Sequence[Tensor], num_images: int) -> "Prefix":
        """Split what a batch's calls returned, each [parts * num_images, ...] with the images innermost, by image."""
        shapes = {tuple(call.shape) for call in calls}
        if len(shapes) != 1 or calls[0].shape[0] % num_images:
            raise PrefixError(f"the denoiser returned tensors of different shapes {sorted(shapes)} for {num_images}")
        stacked = torch.stack([call.unflatten(0, (-1, num_images)) for call in calls])
        return cls([image.contiguous() for image in stacked.unbind(2)])

    def calls(self) -> list[Tensor]:
        """Return what the denoiser returned in each call for the whole batch."""
        return [call.flatten(0, 1) for call in torch.stack(self.outputs, dim=2)]


@contextmanager
def kept(backbone: Backbone, clock: StepClock, before_step: int) -> Iterator[list[Tensor]]:
    """Keep on the CPU what the denoiser returns while the clock stands before a step; the list fills as it runs."""
    calls: list[Tensor] = []

    def keeping(forward: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if clock.step < before_step:
            if not (isinstance(output, tuple) and isinstance(output[0], Tensor)):
                raise PrefixError(f"the denoiser of {backbone.name} returns {type(output).__name__}")
            calls.append(output[0].detach().to("cpu", copy=True))
        return output

    with ExitStack() as stack:
        wrap_method(backbone.denoiser, "forward", keeping, stack)
        yield calls


@contextmanager
def replayed(backbone: Backbone, prefix: Prefix) -> Iterator[None]:
    """Return the kept outputs in the first calls of the denoiser instead of computing them."""
    left = iter(prefix.calls())

    def replaying(forward: Any, *args: Any, **kwargs: Any) -> Any:
        output = next(left, None)
        if output is None:
            return forward(*args, **kwargs)
        return (output.to(backbone.pipe._execution_device),)

    with ExitStack() as stack:
        wrap_method(backbone.denoiser, "forward", replaying, stack)
        yield
