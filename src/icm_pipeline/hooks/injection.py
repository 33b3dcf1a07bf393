"""Prompt injection: some cross-attention layers are given another prompt's text, all else keeps its own.

References:
    On Mechanistic Knowledge Localization in Text-to-Image Generative Models (LocoGen), 2024.
    https://arxiv.org/abs/2405.01008
    Attention, May I Have Your Decision? Localizing Generative Choices in Diffusion Models, 2026, figure 15.
    https://arxiv.org/abs/2604.06052
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.backbones.text_attention import plain_module
from icm_pipeline.hooks.clock import StepClock

TEXT, MASK = "encoder_hidden_states", "attention_mask"  # of what a cross-attention is called with


@dataclass(frozen=True)
class TextContext:
    """What cross-attention is given of some prompts."""

    tokens: Tensor
    """[n, s, d]."""
    mask: Tensor | None
    """[n, ...], where the model tells tokens from padding."""

    @classmethod
    def seen(cls, inputs: Mapping[str, Any], rows: slice) -> "TextContext":
        """Return some rows of what a layer is called with; raises BackboneError where no text is among it."""
        if not isinstance(inputs.get(TEXT), Tensor):
            raise BackboneError(
                f"A cross-attention was called without {TEXT}, so where its text comes from is unknown."
            )
        mask = inputs.get(MASK)
        return cls(inputs[TEXT][rows], None if mask is None else mask[rows])

    @classmethod
    def joined(cls, parts: Sequence["TextContext"]) -> "TextContext":
        """Return the rows of several as one."""
        masks = [part.mask for part in parts if part.mask is not None]
        return cls(torch.cat([part.tokens for part in parts]), torch.cat(masks) if masks else None)

    def rows(self, places: Sequence[int]) -> "TextContext":
        """Return the prompts at some places, any as often as wanted."""
        index = torch.tensor(places, device=self.tokens.device)
        return TextContext(self.tokens[index], None if self.mask is None else self.mask[index])

    def put_into(self, inputs: Mapping[str, Any], rows: slice) -> dict[str, Any]:
        """Return what a layer is called with, with these prompts in some rows."""
        put = {TEXT: _put(inputs[TEXT], rows, self.tokens)}
        if self.mask is not None:
            put[MASK] = _put(inputs[MASK], rows, self.mask)
        return {**inputs, **put}


@contextmanager
def injected(backbone: Backbone, clock: StepClock, layers: Sequence[str], text: TextContext) -> Iterator[None]:
    """Give the conditional rows of cross-attention layers other prompts at every step, while the context lasts.

    Other rows and other layers keep theirs, and so does whatever else a prompt reaches, as SDXL's pooled text. text: of
    each image of the batch. Raises BackboneError for a compiled denoiser.
    """

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if clock.rows is None:
            return None
        TextContext.seen(kwargs, clock.rows)
        return args, text.put_into(kwargs, clock.rows)

    with ExitStack() as stack:
        for layer in layers:
            module = plain_module(backbone, layer)
            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        yield


def _put(whole: Tensor, rows: slice, part: Tensor) -> Tensor:
    assert whole[rows].shape == part.shape, f"{tuple(part.shape)} for {tuple(whole[rows].shape)}"
    return torch.cat([whole[: rows.start], part.to(whole), whole[rows.stop :]])
