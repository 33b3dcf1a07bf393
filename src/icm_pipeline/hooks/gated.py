"""Sites behind an AdaLN gate: the gates are caught as the denoiser runs, and a change is divided by them."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import Backbone, BackboneError, Site
from icm_pipeline.backbones.modules import uncompiled


def away_from_zero(gate: Tensor) -> Tensor:
    """Keep the gate's sign and at least a small size: behind a closed gate no change could be made."""
    least = 1e-3 if gate.dtype == torch.float16 else 1e-5
    return torch.where(gate.abs() < least, torch.full_like(gate, least).copysign(gate), gate)


class CaughtGates:
    """The gates of the blocks that hold gated sites, caught as the denoiser runs."""

    def __init__(self, backbone: Backbone, stack: ExitStack) -> None:
        self._backbone = backbone
        self._stack = stack
        self._caught: dict[str, Tensor] = {}
        self._watched: set[str] = set()

    def watch(self, site: Site) -> None:
        """Catch the gate of a site in every call from now on; raises BackboneError if the family has no gates."""
        gate = self._backbone.family.gate
        if gate is None:
            raise BackboneError(f"{self._backbone.name} puts no gate behind {site.module}: use the layer itself.")
        if site.module in self._watched:
            return
        self._watched.add(site.module)
        source = gate.source(site.module)
        try:
            module = uncompiled(self._backbone.denoiser).get_submodule(source)
        except AttributeError as error:
            raise BackboneError(
                f"{site.module} has no gate of its own: there is no {source}. Use the layer itself."
            ) from error

        def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any = None) -> None:
            self._caught[site.module] = gate.find(module, args, kwargs, output, site.module)

        register: Any = module.register_forward_pre_hook if gate.before else module.register_forward_hook
        self._stack.callback(register(catch, with_kwargs=True).remove)

    def of(self, site: Site) -> Tensor:
        return self._caught[site.module]
