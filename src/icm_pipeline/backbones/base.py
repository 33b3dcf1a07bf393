"""The contract of an architecture: how it loads, where its sites are, what their outputs mean, who is conditional.

Everything that differs between model families is data or one of two pure functions here; nothing else in the project
asks which model it is looking at.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

SITE_KINDS = ("self_attention", "cross_attention", "feed_forward")


class BackboneError(ValueError):
    """A model that cannot be loaded or whose layout cannot be explained; the message says what to do."""


@dataclass(frozen=True)
class Site:
    """One module whose output can be recorded and changed: `layer` is its name inside the denoiser."""

    layer: str
    kind: str


class ReadTokens(Protocol):
    def __call__(self, output: Any, site: Site) -> Tensor:
        """Return the image tokens [b, s, d] of a module's output."""


class WriteTokens(Protocol):
    def __call__(self, output: Any, tokens: Tensor, site: Site) -> Any:
        """Return the module's output with its image tokens replaced."""


@dataclass(frozen=True)
class Backbone:
    """A loaded pipeline with the family's knowledge of it."""

    name: str
    pipe: Any
    denoiser: nn.Module
    sites: tuple[Site, ...]
    read: ReadTokens
    write: WriteTokens
    conditional_rows: Callable[[int, int, bool], slice]
    """(rows of the denoiser's batch, images in it, guidance on) -> the conditional rows; raises BackboneError."""
    guidance_scale: float
    num_steps: int
    device: str
    draw_latents: Callable[[list[int]], Tensor]
    """One seed per image -> initial noise [n, c, h, w] in float32, before the scheduler's scaling."""
    decode: Callable[[Tensor], list[Any]]
    """Latents as the pipeline returns them -> PIL images."""

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1

    def site(self, layer: str) -> Site:
        """Return the site of a layer; raises BackboneError listing what exists."""
        for site in self.sites:
            if site.layer == layer:
                return site
        raise BackboneError(
            f"Layer {layer!r} is not a site of {self.name}. Its sites: {', '.join(site.layer for site in self.sites)}."
        )

    def module(self, site: Site) -> nn.Module:
        return self.denoiser.get_submodule(site.layer)


def find_sites(denoiser: nn.Module, patterns: dict[str, str]) -> tuple[Site, ...]:
    """Return the modules whose whole name matches a kind's pattern, in the order the network runs through its blocks.

    Raises BackboneError for an unknown kind or a pattern that matches nothing.
    """
    names = [name for name, _ in denoiser.named_modules()]
    sites: list[Site] = []
    for kind, pattern in patterns.items():
        if kind not in SITE_KINDS:
            raise BackboneError(f"model.sites has the kind {kind!r}; choose from {', '.join(SITE_KINDS)}.")
        found = [Site(name, kind) for name in names if re.fullmatch(pattern, name)]
        if not found:
            raise BackboneError(f"model.sites.{kind}={pattern!r} matches no module of {type(denoiser).__name__}.")
        sites += found
    return tuple(sorted(sites, key=lambda site: _depth_order(site.layer)))


def _depth_order(layer: str) -> tuple[Any, ...]:
    stage = next((i for i, part in enumerate(("down_", "mid_", "up_")) if layer.startswith(part)), 0)
    return (stage, *[int(part) if part.isdigit() else part for part in re.split(r"[._]", layer)])


def find_kind(layer: str, patterns: dict[str, str]) -> str:
    """Return the kind whose pattern matches a layer's whole name."""
    return next(kind for kind, pattern in patterns.items() if re.fullmatch(pattern, layer))
