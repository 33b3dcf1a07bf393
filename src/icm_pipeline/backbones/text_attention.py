"""Where text comes into the image's tokens: which attentions, which of their modules make values, whose tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from icm_pipeline.backbones.base import Backbone, BackboneError, Family
from icm_pipeline.backbones.modules import is_compiled, path_to, uncompiled
from icm_pipeline.text import with_article


@dataclass(frozen=True)
class TextAttention:
    """An attention whose image tokens take from text tokens, and project what they took."""

    layer: str
    module: nn.Module
    values: nn.Module
    """Makes the values of the text tokens."""
    other_values: tuple[nn.Module, ...]
    """Make those of the image tokens, where these are attended to as well."""
    projection: nn.Module
    """Of the joined heads of the image tokens."""


def no_injection(family: Family) -> str:
    """Return why nothing can be injected into a family's cross-attention; empty if it can."""
    if "cross_attention" in family.sites:
        return ""
    return (
        "it attends to image and text together, in one text stream that runs through all of its blocks, so that a "
        "prompt given to one block would reach every later one."
    )


def no_contribution(family: Family) -> str:
    """Return why what words contribute is not known of a family; empty if it is."""
    return "" if family.tokenizer else "the text that its attention sees is not the tokens of one tokenizer."


def cross_attentions(backbone: Backbone) -> list[str]:
    """Return the cross-attention layers in the order in which the model runs them; raises BackboneError for none."""
    layers = [site.layer for site in backbone.sites if site.kind == "cross_attention"]
    if not layers:
        why = no_injection(backbone.family) or "model.sites names none of them."
        raise BackboneError(f"{backbone.name} has no cross-attention layers: {why}")
    return layers


def text_attentions(backbone: Backbone) -> list[TextAttention]:
    """Return the attentions with values of the text alone and a projection, in the network's order.

    Those are cross-attentions and the joint attentions of double blocks. In a single block, as FLUX has, text and image
    share one projection with the feed-forward layer: it has none that compares. Raises BackboneError if there are none.
    """
    found = []
    for site in backbone.sites:
        module: Any = path_to(uncompiled(backbone.denoiser), site.module)[-1]
        joint = getattr(module, "add_v_proj", None)
        if site.kind == "cross_attention":
            found.append(TextAttention(site.layer, module, module.to_v, (), module.to_out[0]))
        elif site.kind == "self_attention" and joint is not None:
            found.append(TextAttention(site.layer, module, joint, (module.to_v,), module.to_out[0]))
    why = no_contribution(backbone.family) or ("" if found else "it has no attention with values of the text alone.")
    if why:
        raise BackboneError(f"What words contribute is not known of {backbone.name}: {why}")
    return found


def plain_module(backbone: Backbone, layer: str) -> nn.Module:
    """Return the module of a layer; raises BackboneError for a compiled one, whose inputs no hook sees."""
    way = path_to(uncompiled(backbone.denoiser), backbone.site(layer).module)
    if any(map(is_compiled, {backbone.denoiser, *way})):
        raise BackboneError("A compiled denoiser shows no hook what its layers are given: set compute.compile=false.")
    return way[-1]


def tokens_of(backbone: Backbone, prompt: str, naming: str) -> list[int]:
    """Return the places of the tokens of words in a prompt, wherever they stand in it.

    naming: the words around {}, as `female {}`. Raises BackboneError for words that the prompt has not, or a tokenizer
    that does not say where its tokens stand.
    """
    tokenizer = getattr(backbone.pipe, backbone.family.tokenizer)
    if not tokenizer.is_fast:
        raise BackboneError(f"The {type(tokenizer).__name__} of {backbone.name} does not say where its tokens stand.")
    words = [with_article(part.strip()) for part in naming.split("{}") if part.strip()]
    spans = [match.span() for part in words for match in re.finditer(rf"(?<!\w){re.escape(part)}(?!\w)", prompt)]
    places = tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    found = [index for index, place in enumerate(places) if _overlaps(place, spans)]
    if not found:
        raise BackboneError(f"No token of {prompt!r} is of {' '.join(words)!r}, so that nothing says what it adds.")
    return found


def _overlaps(place: Sequence[int], spans: Sequence[tuple[int, int]]) -> bool:
    return any(place[0] < end and start < place[1] for start, end in spans)
