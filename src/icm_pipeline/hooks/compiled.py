"""Hooks on a compiled denoiser: registered once, switched on and off without a new compilation.

Compiled is a denoiser that torch.compile wrapped, one compiled in place by its own compile(), and one whose blocks are
(diffusers' compile_repeated_blocks). A hook registered after the first compiled call is never run, in silence. So one
function stays registered on every module that was ever shown to a hook, and does nothing until something is on for it.

By default torch runs one block's graph for every block of its class, even for one with other hooks, so that a hook on
one block alone is passed over. In the context graphs are made that look at hooks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn

from icm_pipeline.backbones.base import BackboneError, Site

After = Callable[..., Any]  # (module, args, output) -> new output or None
HOOK = -1  # its key among a module's hooks; those of torch's own handles begin at 0
# By module, so two runs share nothing here unless they share a model.
_on: WeakKeyDictionary[nn.Module, list[After]] = WeakKeyDictionary()
_seen: WeakSet[nn.Module] = WeakSet()  # modules for which the function has run: their graphs can be broken
_num_graphs = 0  # that torch had made when a context was last left


@cache
def _registered() -> After:
    """Return the one function, which runs outside of the graph."""

    def run(module: nn.Module, args: Any, output: Any) -> Any:
        _seen.add(module)
        for after in _on.get(module, ()):
            changed = after(module, args, output)
            output = output if changed is None else changed
        return output

    return torch.compiler.disable(run)


def _register(modules: Sequence[nn.Module]) -> None:
    """Register on the modules that lack it; each time costs one recompilation."""
    missing = [module for module in modules if HOOK not in module._forward_hooks]
    if not missing:
        return
    torch._dynamo.reset()
    for module in missing:
        module._forward_hooks[HOOK] = _registered()
        _seen.discard(module)


def _take_off(modules: Sequence[nn.Module]) -> None:
    """Leave no function where it has never run and nothing is on: under fullgraph=True it would stop every call."""
    unused = [module for module in modules if module not in _seen and not _on.get(module)]
    for module in unused:
        module._forward_hooks.pop(HOOK, None)
    if unused:
        torch._dynamo.reset()


@contextmanager
def _looking_at_hooks() -> Iterator[None]:
    """Let torch make graphs that look at hooks; forget all if some were made since that do not."""
    global _num_graphs
    made = torch._dynamo.utils.counters["stats"]
    if torch._dynamo.config.skip_nnmodule_hook_guards and made["unique_graphs"] != _num_graphs:
        torch._dynamo.reset()
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
        try:
            yield
        finally:
            _num_graphs = made["unique_graphs"]


@contextmanager
def switched_on(sites: Sequence[Site], modules: Sequence[nn.Module], afters: Sequence[After]) -> Iterator[None]:
    """Run what belongs after each site's module in the context.

    Raises BackboneError for a site that a compiled model hides, and for a model compiled with fullgraph=True when its
    first call says so.
    """
    gated = [site.layer for site in sites if site.gated]
    if gated:
        raise BackboneError(f"Sites behind a gate cannot be reached in a compiled model: {', '.join(gated)}.")
    with _looking_at_hooks():
        _register(modules)
        for module, after in zip(modules, afters, strict=True):
            _on.setdefault(module, []).append(after)
        try:
            yield
        except torch._dynamo.exc.Unsupported as error:
            if "torch.compiler.disable" not in str(error):
                raise
            raise BackboneError(
                "This denoiser was compiled with fullgraph=True, and showing a layer to a hook takes a break in the "
                "graph: compile it without, or steer and record it before it is compiled."
            ) from error
        finally:
            for module, after in zip(modules, afters, strict=True):
                _on[module].remove(after)
            _take_off(modules)
