"""Low-rank adapters of linear and convolutional layers, one for each option, with an option and a strength a row.

y + scale / rank B[k] (A[k] x), A of the layer's own shape with `rank` outputs, B a matrix. PEFT's adapters have one
strength for all rows, and take another adapter for each row only where nothing is trained; a batch here holds images
of different options, so these are hooks of our own.

References:
    LoRA: Low-Rank Adaptation of Large Language Models, 2021, https://arxiv.org/abs/2106.09685
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.modules import path_to, uncompiled, walk

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")  # of an attention, where it has them
Adapters = Mapping[str, Mapping[str, Tensor]]
"""{layer: {"down": [K, rank, in, ...], "up": [K, out, rank]}}."""
PerRow = Callable[[int], tuple[Tensor, Tensor] | None]
"""From a call's number of rows to the option and the strength of each, [n] and [n]; None for no change."""


def projections(backbone: Backbone, attentions: list[str]) -> list[str]:
    """Return the linear layers of some attentions by name."""
    modules = dict(walk(uncompiled(backbone.denoiser)))
    return [name for site in attentions for each in PROJECTIONS if (name := f"{site}.{each}") in modules]


def convolutions(backbone: Backbone) -> list[str]:
    """Return the convolutions inside the blocks, but for those that take each channel alone."""
    blocks = {layer.split(".")[0] for layer in backbone.layers} | {backbone.family.bottleneck}
    return [
        name
        for name, module in walk(uncompiled(backbone.denoiser))
        if isinstance(module, nn.Conv2d) and module.groups == 1 and name.split(".")[0] in blocks
    ]


def new_adapters(
    backbone: Backbone, layers: list[str], num_options: int, rank: int, seed: int
) -> dict[str, dict[str, Tensor]]:
    """Return adapters that change nothing yet, as leaves: A random (Kaiming), B zero."""
    found, generator = dict[str, dict[str, Tensor]](), torch.Generator().manual_seed(seed)
    for layer in layers:
        weight = path_to(uncompiled(backbone.denoiser), layer)[-1].weight
        assert isinstance(weight, Tensor)
        down = torch.empty(num_options, rank, *weight.shape[1:])
        for each in down:
            nn.init.kaiming_uniform_(each, a=5**0.5, generator=generator)
        up = torch.zeros(num_options, len(weight), rank)
        found[layer] = {
            name: tensor.to(weight.device).requires_grad_() for name, tensor in (("down", down), ("up", up))
        }
    return found


def change(module: nn.Module, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Return B (A x) of every row: x [n, ...], down [n, rank, in, ...], up [n, out, rank], as the layer's output."""
    if isinstance(module, nn.Linear):
        tokens = x.flatten(1, -2) if x.dim() > 2 else x[:, None]
        changed = tokens @ down.mT @ up.mT
        return changed.view(*x.shape[:-1], up.shape[1])
    assert isinstance(module, nn.Conv2d) and not isinstance(module.padding, str)
    maps = functional.conv2d(
        x.flatten(0, 1)[None], down.flatten(0, 1), None, module.stride, module.padding, module.dilation, len(x)
    )[0].unflatten(0, down.shape[:2])
    return (up @ maps.flatten(2)).unflatten(2, maps.shape[2:])


@contextmanager
def adapted(backbone: Backbone, adapters: Adapters, per_row: PerRow) -> Iterator[None]:
    """Add adapters' outputs to those of their layers, for each row of a call those of its option."""
    denoiser = uncompiled(backbone.denoiser)

    def after_of(own: Mapping[str, Tensor]) -> Callable[..., Any]:
        rank = own["down"].shape[1]

        def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            rows = per_row(len(output))
            if rows is None:
                return None
            options, scales = rows
            down, up = (own[name][options].to(output.dtype) for name in ("down", "up"))
            lengths = (scales / rank).to(output).view(-1, *[1] * (output.dim() - 1))
            return output + lengths * change(module, args[0], down, up)

        return after

    with ExitStack() as stack:
        for layer, own in adapters.items():
            handle = path_to(denoiser, layer)[-1].register_forward_hook(after_of(own))
            stack.callback(handle.remove)
        yield
