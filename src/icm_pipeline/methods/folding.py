"""Steering at no cost: a shift that is the same at every step and for every row is a bias of the layer's last map.

A layer ends in a linear map with a bias, y = W x + c, so that y + s = W x + (c + s). That is exact up to the rounding
of the bias's own dtype, which is refused where it takes too much. What depends on the step, on the tokens or on which
half of guidance a row belongs to cannot be folded and is refused with the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone, Call, Site
from icm_pipeline.backbones.formats import ORDERS, order_of
from icm_pipeline.backbones.modules import path_to, uncompiled
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors

SAME = 1e-5  # largest difference of a unit direction, or relative difference of a length, that counts as rounding
LOST = 0.05  # share of a shift that the rounding of a bias may take


class FoldingError(ValueError):
    """A shift that no bias can stand for; the message says why and what to do."""


class Folded:
    """Shifts that were folded into a pipeline. As a context it takes them out again at its end, bitwise."""

    def __init__(self, backbone: Backbone, shifts: Mapping[str, Tensor]) -> None:
        shifted = {layer: _shifted(backbone, backbone.site(layer), shift) for layer, shift in shifts.items()}
        self._before = [(projection, projection.bias.detach().clone()) for projection, _ in shifted.values()]
        try:
            for (layer, (projection, bias)), (_, before) in zip(shifted.items(), self._before, strict=True):
                _set_bias(projection, bias)
                _check_arrived(layer, projection.bias.detach(), bias, before)
        except FoldingError:
            self.undo()
            raise

    def undo(self) -> None:
        """Give every projection the bias it had before; does nothing the second time."""
        while self._before:
            _set_bias(*self._before.pop())

    def __enter__(self) -> "Folded":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.undo()


@dataclass(frozen=True)
class LastMap:
    """The linear map that ends a site's module."""

    name: str
    """The module that it is, inside the denoiser."""
    linear: nn.Linear
    factor: float
    """What the site's module divides its output by."""


def constant_shifts(vectors: SteeringVectors, option: int, strength: Strength) -> dict[str, Tensor]:
    """Return the shift [d] of every layer, in float64.

    Raises FoldingError if it changes within a run, is not finite, or is 0 where alpha is not.
    """
    first, last = strength.first_step, strength.last_step
    to_the_end = last is None or (strength.num_steps is not None and last >= strength.num_steps - 1)
    if first > 0 or not to_the_end:
        raise FoldingError(
            f"Only steps {first} to {'the end' if last is None else last} are steered, and a bias acts at every step. "
            "Give window=(0, None), or use steer()."
        )
    if strength.norm_preserving:
        raise FoldingError(
            "Keeping every token's length depends on the token, which a bias does not. Give norm_preserving=False, "
            "which lets lengths change, or use steer()."
        )
    if isinstance(strength.alpha, Sequence):
        raise FoldingError("An alpha for each image depends on the image, which a bias does not. Use steer().")
    relative = strength.alpha_unit == "relative"
    shifts = {layer: strength.alpha * _constant_shift(vectors, layer, option, relative) for layer in vectors.layers}
    for layer, shift in shifts.items():
        check_finite(layer, shift)
        if strength.alpha and not shift.any():
            raise FoldingError(
                f"The direction of {layer} to {vectors.options[option]} is 0, so that nothing would be shifted: leave "
                "the layer out (layers=), or fit the vectors to prompts or images that differ."
            )
    return shifts


def check_finite(layer: str, shift: Tensor) -> None:
    """Raise FoldingError for a shift that float32 cannot hold."""
    if not shift.float().isfinite().all():
        raise FoldingError(
            f"The shift of {layer} is NaN or infinite in float32: give a smaller alpha, or other vectors."
        )


def _constant_shift(vectors: SteeringVectors, layer: str, option: int, relative: bool) -> Tensor:
    """Return the shift of alpha 1."""
    directions, lengths = vectors.directions[layer][:, option].double(), vectors.mean_norms[layer].double()
    if (directions - directions[0]).abs().max() > SAME:
        raise FoldingError(
            f"The direction of {layer} differs from step to step. Give vectors.averaged(), whose directions are "
            "constant, or use steer()."
        )
    if not relative:
        return directions[0]
    if (lengths - lengths[0]).abs().max() > SAME * lengths[0]:
        raise FoldingError(
            f"A relative alpha follows the mean activation of {layer}, which differs from step to step. Give "
            "vectors.averaged(lengths=True), or alpha_unit='activation' and an alpha in activation units, or steer()."
        )
    return lengths[0] * directions[0]


def moves_text(backbone: Backbone, site: Site) -> bool:
    """Say whether a site's module projects other tokens than the image's with the map that ends it."""
    order = order_of(backbone.family, site)
    row, call = torch.zeros(1, 8, 1), Call(num_rows=1, num_images=1, index=0, num_text_tokens=3, num_image_tokens=5)
    if order.read(row, site, call).shape != row.shape:
        return True
    module: Any = path_to(uncompiled(backbone.denoiser), site.module)[-1]  # CogView's splits what one map projected
    return order is ORDERS["image, text"] and hasattr(module, "to_out") and getattr(module, "to_add_out", None) is None


def last_map(backbone: Backbone, site: Site) -> LastMap:
    """Return the linear map that ends a site's module; raises FoldingError where there is none of its own."""
    if site.gated:
        raise FoldingError(f"{site.layer} lies behind a gate that depends on the step. Use steer().")
    module: Any = uncompiled(path_to(uncompiled(backbone.denoiser), site.module)[-1])
    for name in ("to_out", "net"):
        chain = getattr(module, name, None)
        if isinstance(chain, nn.ModuleList):
            *_, (place, last) = [(i, part) for i, part in enumerate(chain) if not isinstance(part, nn.Dropout)]
            factor = float(getattr(module, "rescale_output_factor", 1.0))
            return LastMap(f"{site.module}.{name}.{place}", without_lora(site.layer, last), factor)
    raise FoldingError(f"{site.layer} ends in no linear map of its own, so there is no bias to fold into.")


def check_width(layer: str, shift: Tensor, projection: nn.Linear) -> None:
    """Raise FoldingError for vectors that are not as wide as what a linear map gives."""
    if len(shift) != projection.out_features:
        raise FoldingError(
            f"The vectors of {layer} are {len(shift)} wide and its bias {projection.out_features}: they were made on "
            "another model."
        )


def _shifted(backbone: Backbone, site: Site, shift: Tensor) -> tuple[nn.Linear, Tensor]:
    """Return the linear map that ends a site's module, and its bias with the shift added, in float64.

    Raises FoldingError where there is none or where its bias would do more or less than a shift of image tokens.
    """
    if not site.gated and moves_text(backbone, site):
        raise FoldingError(f"{site.layer} projects text tokens with the image tokens' map, so a bias shifts both.")
    found = last_map(backbone, site)
    projection, bias = found.linear, found.linear.bias
    way = [*path_to(uncompiled(backbone.denoiser), found.name), projection]
    if any(_is_read_elsewhere(part, bias) for part in way):
        raise FoldingError(
            f"The weights of {site.layer} are offloaded in groups and read from disk in every call, so what is written "
            "into its bias is lost. Fold before the offloading is enabled, or use steer()."
        )
    if bias is None or bias.is_meta:
        raise FoldingError(f"The last map of {site.layer} has no bias, or none that is loaded (offload): use steer().")
    check_width(site.layer, shift, projection)
    return projection, bias.detach().double() + found.factor * shift.to(bias.device)


def without_lora(layer: str, projection: nn.Module) -> nn.Linear:
    """Return the linear map, of a LoRA's layer the one that it adds to; raises FoldingError for anything else."""
    while hasattr(projection, "lora_A") and isinstance(projection.base_layer, nn.Module):
        projection = projection.base_layer
    if hasattr(projection, "base_layer"):
        raise FoldingError(
            f"{layer} ends in a PEFT layer that is no LoRA and may scale what its map gives. Merge or unload the "
            "adapter first, or use steer()."
        )
    if not isinstance(projection, nn.Linear):
        raise FoldingError(f"{layer} ends in a {type(projection).__name__}, not in a plain nn.Linear.")
    return projection


def _is_read_elsewhere(module: nn.Module, bias: Any) -> bool:
    """Say whether diffusers' group offloading reads the module's weights from disk or from a copy in every call."""
    registry: Any = getattr(module, "_diffusers_hook", None)
    groups = [getattr(hook, "group", None) for hook in registry.hooks.values()] if registry is not None else []
    copies = [group.cpu_param_dict.get(bias) for group in groups if group is not None]
    on_disk = any(getattr(group, "offload_to_disk_path", None) for group in groups)
    return on_disk or any(copy is not None and copy.data_ptr() != bias.data_ptr() for copy in copies)


def _check_arrived(layer: str, bias: Tensor, wanted: Tensor, before: Tensor) -> None:
    """Raise FoldingError if a bias does not hold what was written into it."""
    lost = float((bias.double() - wanted).norm() / (wanted - before.double()).norm().clamp_min(1e-300))
    if not lost <= LOST:
        raise FoldingError(
            f"The bias of {layer} is kept in {str(bias.dtype).removeprefix('torch.')}, whose rounding takes {lost:.0%} "
            "of the shift. Use steer(), or keep this layer in a finer dtype."
        )


@torch.no_grad()
def _set_bias(projection: nn.Linear, value: Tensor) -> None:
    projection.bias.copy_(value)
