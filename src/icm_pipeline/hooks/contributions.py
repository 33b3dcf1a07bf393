"""How much of some words attention puts into the image: LocK's contribution of a layer at a step.

Of an image token x and the words' tokens S it is the norm of W_o concat_h sum_S a_h(x, s) v_h(s), where a_h is the
softmax over all tokens and W_o the output projection without its bias. The layer is run once more with the values of
all other tokens at zero, so that masks, norms and rotary positions are the model's own; what it returned stays.

References:
    Localizing Knowledge in Diffusion Transformers (LocK), 2025. https://arxiv.org/abs/2505.18832
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.backbones.text_attention import TextAttention, plain_module
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.recording import Recorder


@contextmanager
def contributing(
    backbone: Backbone,
    attentions: Sequence[TextAttention],
    clock: StepClock,
    recorder: Recorder,
    tokens: Sequence[Sequence[int]],
) -> Iterator[None]:
    """Record the mean over image tokens of what words contribute, [n, T, 1], and change nothing.

    tokens: the places of each image's words. Raises BackboneError for a layer that is compiled, is not in memory, or
    makes its values in another way.
    """
    with ExitStack() as stack:
        for attention in attentions:
            module = plain_module(backbone, attention.layer)
            after = _after(backbone, attention, clock, recorder, tokens)
            stack.callback(module.register_forward_hook(after, with_kwargs=True).remove)
        yield


def _after(
    backbone: Backbone, attention: TextAttention, clock: StepClock, recorder: Recorder, tokens: Sequence[Sequence[int]]
) -> Callable[..., None]:
    site = backbone.site(attention.layer)

    def after(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        rows = clock.rows
        if rows is None or clock.step not in recorder.steps:
            return
        added = contribution_of(attention, args, kwargs, rows, tokens)
        recorder(added.norm(dim=-1, keepdim=True), site, clock)

    return after


def contribution_of(
    attention: TextAttention,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    rows: slice,
    tokens: Sequence[Sequence[int]],
) -> Tensor:
    """Return what words add to the image tokens of some rows of a call [n, s, d], in float32.

    tokens: the places of the words in each of the n rows.
    """
    seen, num_values = list[Tensor](), 0

    def of_words(module: nn.Module, given: Any, values: Tensor) -> Tensor:
        nonlocal num_values
        num_values += 1
        kept = torch.zeros_like(values)
        for row, places in enumerate(tokens, rows.start or 0):
            kept[row, places] = values[row, places]
        return kept

    def of_nothing(module: nn.Module, given: Any, values: Tensor) -> Tensor:
        return torch.zeros_like(values)

    def joined(module: nn.Module, given: tuple[Any, ...]) -> None:
        seen.append(given[0])

    with ExitStack() as stack:
        stack.callback(attention.values.register_forward_hook(of_words).remove)
        for other in attention.other_values:
            stack.callback(other.register_forward_hook(of_nothing).remove)
        stack.callback(attention.projection.register_forward_pre_hook(joined).remove)
        attention.module.forward(*args, **kwargs)
    if not seen or not num_values:
        raise BackboneError(f"{attention.layer} does not use its own projections: undo fuse_qkv_projections().")
    return _without_bias(attention, seen[0][rows]).float()


def _without_bias(attention: TextAttention, joined: Tensor) -> Tensor:
    """Return what the projection makes of joined heads, but for its bias, also where adapters wrap it."""
    parameters = dict(attention.projection.named_parameters())
    if any(each.is_meta for each in parameters.values()):
        raise BackboneError("Contributions need the weights in memory: set compute.offload=none.")
    biases = {name: torch.zeros_like(each) for name, each in parameters.items() if name.split(".")[-1] == "bias"}
    projected: Tensor = torch.func.functional_call(attention.projection, biases, (joined,))
    return projected
