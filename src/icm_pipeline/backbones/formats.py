"""Output formats of modules: how to read the image tokens [b, s, d] out of them and write them back.

Each reader has a writer; `write(output, read(output)) == output`, bitwise. A family names its own, one of `ORDERS`.
"""

import re
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from icm_pipeline.backbones.base import OTHER, BackboneError, Call, Family, ReadTokens, Site, WriteTokens


def tensor_of(output: Any, site: Site, dimensions: int = 3) -> Tensor:
    """Return a module's output if it is a tensor of so many dimensions; raises BackboneError."""
    if not isinstance(output, Tensor) or output.dim() != dimensions:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise BackboneError(f"{site.layer} gave {found}, not a tensor of {dimensions} dimensions.")
    return output


def image_only(tokens: Tensor, site: Site, call: Call) -> Tensor:
    """Return tokens if they can be the image's; raises BackboneError for another number where that is known."""
    if site.kind == OTHER and call.num_image_tokens not in (None, tokens.shape[1]):
        raise BackboneError(
            f"{site.layer} gave {tokens.shape[1]} tokens where the image has {call.num_image_tokens}: those of another."
        )
    return tokens


def read_tokens(output: Any, site: Site, call: Call) -> Tensor:
    """Read an output that is the image tokens."""
    if type(output) is Tensor and output.dim() == 3 and site.kind != OTHER:  # at every layer of every step
        return output
    return image_only(tensor_of(output, site), site, call)


def read_tokens_or_map(output: Any, site: Site, call: Call) -> Tensor:
    """Read image tokens, or a feature map [b, d, h, w] as tokens in row order (a UNet's middle block)."""
    if type(output) is Tensor and output.dim() == 3 and site.kind != OTHER:  # at every layer of every step
        return output
    if isinstance(output, Tensor) and output.dim() == 4:
        return image_only(output.flatten(2).transpose(1, 2), site, call)
    return read_tokens(output, site, call)


def gives_image_alone(read: ReadTokens, site: Site) -> bool:
    """Say whether an output of three dimensions is the image tokens as it stands, of a site whose kind is known."""
    return site.kind != OTHER and read in (read_tokens, read_tokens_or_map)


def write_tokens_or_map(output: Any, tokens: Tensor, site: Site, call: Call) -> Any:
    return tokens.transpose(1, 2).unflatten(2, output.shape[2:]) if output.dim() == 4 else tokens


def read_pair(output: Any, site: Site, call: Call) -> Tensor:
    """Read (image tokens, text tokens), or image tokens alone: joint attention (FLUX's double blocks, SD3).

    A whole joint block gives (text tokens, image tokens).
    """
    return read_tokens(output[_place_of_image(site)] if isinstance(output, tuple) else output, site, call)


def write_pair(output: Any, tokens: Tensor, site: Site, call: Call) -> Any:
    if not isinstance(output, tuple):
        return tokens
    place = _place_of_image(site)
    return (*output[:place], tokens, *output[place + 1 :])


def _place_of_image(site: Site) -> int:
    """Return where in a pair the image tokens are; raises BackboneError for a module that no kind describes."""
    if site.kind == OTHER:
        raise BackboneError(f"{site.layer} gives a pair, of which it is not known which half is the image.")
    return 1 if site.kind == "block" else 0


def read_image_and_text(output: Any, site: Site, call: Call) -> Tensor:
    """Read (image tokens, text tokens), of attention and of a whole block alike (CogView)."""
    return read_tokens(output[0] if isinstance(output, tuple) else output, site, call)


def write_image_and_text(output: Any, tokens: Tensor, site: Site, call: Call) -> Any:
    return (tokens, *output[1:]) if isinstance(output, tuple) else tokens


def read_last(output: Any, site: Site, call: Call) -> Tensor:
    """Read one sequence that ends with the image tokens, whatever comes before them (AuraFlow's single blocks)."""
    whole, count = tensor_of(output, site), _num_image(call, site)
    return whole[:, whole.shape[1] - count :]


def write_last(output: Any, tokens: Tensor, site: Site, call: Call) -> Any:
    return torch.cat([output[:, : output.shape[1] - tokens.shape[1]], tokens], dim=1)


def read_after_text(output: Any, site: Site, call: Call) -> Tensor:
    """Read one sequence in which the text tokens come first (FLUX's single blocks), in each row as many as it has."""
    whole, num_text = tensor_of(output, site), _num_text(call, site)
    if isinstance(num_text, int):
        return image_only(whole[:, num_text:], site, call)
    count = _num_image(call, site)
    return torch.stack([row[start : start + count] for row, start in zip(whole, num_text, strict=True)])


def write_after_text(output: Any, tokens: Tensor, site: Site, call: Call) -> Any:
    num_text = _num_text(call, site)
    if isinstance(num_text, int):
        return torch.cat([output[:, :num_text], tokens], dim=1)
    whole = output.clone()
    for row, start, image in zip(whole, num_text, tokens, strict=True):
        row[start : start + len(image)] = image
    return whole


def read_before_text(output: Any, site: Site, call: Call) -> Tensor:
    """Read one sequence in which the image tokens come first, before padding and text (Z-Image)."""
    return tensor_of(output, site)[:, : _num_image(call, site)]


def write_before_text(output: Any, tokens: Tensor, site: Site, call: Call) -> Any:
    return torch.cat([tokens, output[:, _num_image(call, site) :]], dim=1)


def _num_text(call: Call, site: Site) -> int | tuple[int, ...]:
    if call.num_text_tokens is None:
        raise _unsaid("text", site)
    return call.num_text_tokens


def _num_image(call: Call, site: Site) -> int:
    if call.num_image_tokens is None:
        raise _unsaid("image", site)
    return call.num_image_tokens


def _unsaid(name: str, site: Site) -> BackboneError:
    return BackboneError(f"The call that reached {site.layer} does not say how many {name} tokens it has.")


class Order(NamedTuple):
    """How image tokens are read out of an output, and written back into it."""

    read: ReadTokens
    write: WriteTokens

    def beside_references(self, *, last: bool) -> "Order":
        """Return the order of one end of these tokens, at whose other end those of reference pictures stand."""

        def whole(output: Any, site: Site, call: Call) -> Tensor:
            return self.read(output, site, replace(call, num_image_tokens=None))

        def split(output: Any, site: Site, call: Call) -> tuple[Tensor, Tensor]:
            """Return the image's tokens and the references'."""
            both, count = whole(output, site, call), _num_image(call, site)
            if last:
                return both[:, both.shape[1] - count :], both[:, : both.shape[1] - count]
            return both[:, :count], both[:, count:]

        def read(output: Any, site: Site, call: Call) -> Tensor:
            return image_only(split(output, site, call)[0], site, call)

        def write(output: Any, tokens: Tensor, site: Site, call: Call) -> Any:
            parts = [tokens, split(output, site, call)[1]]
            return self.write(output, torch.cat(parts[::-1] if last else parts, dim=1), site, call)

        return Order(read, write)


ORDERS = {
    "image only": Order(read_tokens_or_map, write_tokens_or_map),
    "pair": Order(read_pair, write_pair),
    "image, text": Order(read_image_and_text, write_image_and_text),
    "text first": Order(read_after_text, write_after_text),
    "image first": Order(read_before_text, write_before_text),
    "image last": Order(read_last, write_last),
    "pair, references last": Order(read_pair, write_pair).beside_references(last=False),
    "pair, references first": Order(read_pair, write_pair).beside_references(last=True),
    "text first, references last": Order(read_after_text, write_after_text).beside_references(last=False),
}

# Double blocks, then single ones, whose parts see one sequence; a whole block of either kind gives a pair.
DOUBLE_THEN_SINGLE = {r"single_transformer_blocks\.\d+\..+": "text first", r".*": "pair"}

WITH_REFERENCES = {pattern: f"{name}, references last" for pattern, name in DOUBLE_THEN_SINGLE.items()}


def order_of(family: Family, site: Site) -> Order:
    """Return the order of a site's output; raises BackboneError for a module that no pattern of the family names."""
    for pattern, name in family.orders.items():
        if re.fullmatch(pattern, site.module):
            return ORDERS[name]
    raise BackboneError(f"Where the image's tokens are in the output of {site.layer} is not known for {family.name}.")
