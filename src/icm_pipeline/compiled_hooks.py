"""Hooks on a compiled denoiser: registered once, switched on and off without a new compilation.

Compiled is a denoiser that torch.compile wrapped, one compiled in place by its own compile(), and one whose blocks are
(diffusers' compile_repeated_blocks). A hook registered after the first compiled call is never run, in silence.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from icm_pipeline.backbones.base import BackboneError, Site

# What torch says of hooks in a graph that may not be broken.
REASON = "icm_pipeline shows this layer to a hook, outside the compiled graph"


class _Switchboard:
    """Hooks that stay on a compiled denoiser and do nothing until they are switched on.

    Each new layer costs one recompilation and is then kept.
    """

    def __init__(self) -> None:
        self.wired: dict[str, RemovableHandle] = {}
        self.on: dict[str, list[Callable[..., Any]]] = {}  # (module, args, output) -> new output or None

    def wire(self, denoiser: nn.Module, names: Sequence[str]) -> None:
        """Register on the modules that have no hook yet."""
        missing = [name for name in names if name not in self.wired]
        if missing:
            # Blocks of one class share their graphs; without this one with hooks is run as one without.
            torch._dynamo.config.skip_nnmodule_hook_guards = False
            torch._dynamo.reset()
        for name in missing:
            run = torch.compiler.disable(functools.partial(self.run, name), reason=REASON)
            self.wired[name] = denoiser.get_submodule(name).register_forward_hook(run)

    def unwire(self) -> None:
        """Take every hook off again, which costs a recompilation too."""
        while self.wired:
            self.wired.popitem()[1].remove()
        torch._dynamo.reset()

    def run(self, name: str, module: nn.Module, args: Any, output: Any) -> Any:
        for hook in self.on.get(name, []):
            changed = hook(module, args, output)
            output = output if changed is None else changed
        return output


_SWITCHBOARDS: WeakKeyDictionary[nn.Module, _Switchboard] = WeakKeyDictionary()


@contextmanager
def switched_on(denoiser: nn.Module, sites: Sequence[Site], afters: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Run what belongs after each site's module, (module, args, output) -> new output or None, in the context.

    Raises BackboneError for a site that a compiled model hides, and for a model compiled with fullgraph=True when its
    first call says so.
    """
    gated = [site.layer for site in sites if site.gated]
    if gated:
        raise BackboneError(f"Sites behind a gate cannot be reached in a compiled model: {', '.join(gated)}.")
    board = _SWITCHBOARDS.setdefault(denoiser, _Switchboard())
    board.wire(denoiser, [site.module for site in sites])
    added = [(board.on.setdefault(site.module, []), after) for site, after in zip(sites, afters, strict=True)]
    for hooks, after in added:
        hooks.append(after)
    try:
        yield
    except torch._dynamo.exc.Unsupported as error:
        if REASON not in str(error):
            raise
        board.unwire()
        raise BackboneError(
            "This denoiser was compiled with fullgraph=True, and showing a layer to a hook takes a break in the graph: "
            "compile it without, or steer and record it before it is compiled."
        ) from error
    finally:
        for hooks, after in added:
            hooks.remove(after)
