"""Hooks on a denoiser that torch.compile wrapped: registered once, switched on and off without a new compilation."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from icm_pipeline.backbones.base import BackboneError, Site


class _Switchboard:
    """Hooks that stay on a compiled denoiser and do nothing until they are switched on.

    A hook registered after the first compiled call is never run, so each new layer costs one recompilation and is
    then kept.
    """

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.on: dict[str, list[Callable[..., Any]]] = {}  # (module, args, output) -> new output or None

    def wire(self, denoiser: nn.Module, names: Sequence[str]) -> None:
        """Register on the modules that have no hook yet."""
        missing = [name for name in names if name not in self.modules]
        if missing:
            torch._dynamo.reset()
        for name in missing:
            denoiser.get_submodule(name).register_forward_hook(
                torch.compiler.disable(functools.partial(self.run, name))
            )
            self.modules.add(name)

    def run(self, name: str, module: nn.Module, args: Any, output: Any) -> Any:
        for hook in self.on.get(name, []):
            changed = hook(module, args, output)
            output = output if changed is None else changed
        return output


_SWITCHBOARDS: WeakKeyDictionary[nn.Module, _Switchboard] = WeakKeyDictionary()


@contextmanager
def switched_on(denoiser: nn.Module, sites: Sequence[Site], after: Callable[..., Any]) -> Iterator[None]:
    gated = [site.layer for site in sites if site.gated]
    if gated:
        raise BackboneError(f"Sites behind a gate cannot be reached in a compiled model: {', '.join(gated)}.")
    board = _SWITCHBOARDS.setdefault(denoiser, _Switchboard())
    board.wire(denoiser, [site.module for site in sites])
    added = [(board.on.setdefault(site.module, []), functools.partial(after, site)) for site in sites]
    for hooks, hook in added:
        hooks.append(hook)
    try:
        yield
    finally:
        for hooks, hook in added:
            hooks.remove(hook)
