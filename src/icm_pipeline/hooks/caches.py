"""Caches that give a layer's output of an earlier step, found by what their libraries leave on a denoiser.

A skipped layer is not shifted in that step, what was cached of a shifted step comes back in others, and a recording
would file it under the wrong step. Exact for steering are diffusers' caches of attention outputs alone: a hook gets
what they kept from before the hook, in every step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.backbones.modules import parts_of, uncompiled

ATTENTION_ALONE = "pyramid_attention_broadcast"  # diffusers' names of hooks
OF_TEXT = {"text_kv_cache_transformer", "text_kv_cache_block"}  # the text's keys and values, the same in every step
BY_PATTERNS = "taylorseer_cache"  # on attention outputs too, unless the user names others
# What else is known by a mark on the denoiser, or by the package of a forward in a module's place; how to take it off.
MARKS = {
    "_is_cached": ("cache-dit", "cache_dit.disable_cache(pipe)"),
    "enable_teacache": ("TeaCache", "enable_teacache = False on the denoiser's class"),
}
PACKAGES = {"DeepCache": "its helper's disable()"}


@dataclass(frozen=True)
class Cache:
    name: str
    disable: str
    """The call that takes it off."""
    holders: frozenset[nn.Module] = frozenset()
    """The modules whose outputs it keeps, if they are known and attention alone."""


def check_caches(backbone: Backbone, ways: Sequence[Sequence[nn.Module]], reused: bool) -> None:
    """Raise BackboneError for an enabled cache, unless every module at the end of a way runs in every step.

    ways: from the denoiser down to each module; reused: whether such a module may give what was kept of its output.
    """
    cache = _find(uncompiled(backbone.denoiser))
    if cache is None or (reused and cache.holders and not any(cache.holders.intersection(way[:-1]) for way in ways)):
        return
    raise BackboneError(
        f"{cache.name} is enabled on the denoiser of {backbone.name}. It gives outputs of earlier steps in a layer's "
        "place: recordings would be of other steps, and a shift left out of some steps and carried into others. "
        f"Disable it first, with {cache.disable}."
    )


def reset_caches(backbone: Backbone) -> None:
    """Make diffusers' caches forget what an interrupted run left in them."""
    for module in parts_of(uncompiled(backbone.denoiser)):
        if _stateful_hooks(own := vars(module)):
            own["_diffusers_hook"].reset_stateful_hooks(recurse=False)


def _find(denoiser: nn.Module) -> Cache | None:
    for mark, (name, disable) in MARKS.items():
        if getattr(denoiser, mark, False):
            return Cache(name, disable)
    found, packages = list[tuple[nn.Module, list[str]]](), {type(denoiser).__module__.split(".")[0]}
    for module in parts_of(denoiser):
        own = vars(module)
        if "forward" in own:
            packages.add(_package_of(own["forward"]))
        if "_diffusers_hook" not in own:
            continue
        if names := [name for name in _stateful_hooks(own) if name not in OF_TEXT]:
            found.append((module, names))
    for package in packages & PACKAGES.keys():
        return Cache(package, PACKAGES[package])
    names_of_all = {name for _, names in found for name in names}
    if not names_of_all:
        return None
    config = getattr(denoiser, "_cache_config", None)
    called = type(config).__name__.removesuffix("Config") if config else " and ".join(sorted(names_of_all))
    holders = (module for module, _ in found) if _is_of_attention_alone(names_of_all, config) else ()
    disable = "the denoiser's disable_cache()" if config else "diffusers' HookRegistry.remove_hook()"
    return Cache(called, disable, frozenset(holders))


def _is_of_attention_alone(names: set[str], config: Any) -> bool:
    if names == {BY_PATTERNS} and config is not None:
        return not (config.use_lite_mode or config.cache_identifiers or config.skip_predict_identifiers)
    return names == {ATTENTION_ALONE}


def _package_of(forward: Any) -> str:
    """Return the package of what stands in the place of a module's own forward."""
    while isinstance(forward, partial):
        forward = forward.func
    return str(getattr(forward, "__module__", "")).split(".")[0]


def _stateful_hooks(own: Mapping[str, Any]) -> list[str]:
    """Return the names of diffusers' hooks that keep something from call to call, out of a module's attributes."""
    registry = own.get("_diffusers_hook")
    return [] if registry is None else [name for name, hook in registry.hooks.items() if hook._is_stateful]
