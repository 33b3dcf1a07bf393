"""The contract of an architecture: where its sites are, what their outputs mean, which rows of a call are conditional.

Everything that differs between model families is data or a small pure function of a `Family`; nothing else in the
project asks which model it is looking at.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor, nn

from icm_pipeline.backbones.modules import path_to, uncompiled

OTHER = "other"  # the kind of a site that no pattern of the family names
GATED = "@gate"  # ends the layer's name of a site that lies behind its AdaLN gate


class BackboneError(ValueError):
    """A model that cannot be loaded or whose layout cannot be explained; the message says what to do."""


@dataclass(frozen=True)
class Site:
    """One place whose activations can be recorded and changed.

    `layer` names it: a module inside the denoiser, followed by `@gate` if what counts is the module's output times the
    gate that AdaLN puts on it before the residual sum.
    """

    layer: str
    kind: str

    @property
    def module(self) -> str:
        return self.layer.removesuffix(GATED)

    @property
    def gated(self) -> bool:
        return self.layer.endswith(GATED)


@dataclass(frozen=True)
class Call:
    """One call of the denoiser.

    num_rows: its batch; num_images: the images of the batch, whatever guidance adds to them; index: which call since
    the scheduler's last step, from 0; num_text_tokens and num_image_tokens: per row, None where the call does not say.
    """

    num_rows: int
    num_images: int
    index: int
    num_text_tokens: int | None = None
    num_image_tokens: int | None = None

    @property
    def rows_per_image(self) -> int:
        """Return how many rows each image has; raises BackboneError if that is not a whole number."""
        if self.num_images < 1 or self.num_rows % self.num_images:
            raise BackboneError(
                f"The denoiser ran on {self.num_rows} rows for {self.num_images} image(s), which no guidance explains."
            )
        return self.num_rows // self.num_images


class ReadTokens(Protocol):
    def __call__(self, output: Any, site: Site, call: Call) -> Tensor:
        """Return the image tokens [b, s, d] of a module's output."""


class WriteTokens(Protocol):
    def __call__(self, output: Any, tokens: Tensor, site: Site, call: Call) -> Any:
        """Return the module's output with its image tokens replaced."""


@dataclass(frozen=True)
class Gate:
    """Where the AdaLN gate of a gated site comes from.

    source: a site's module -> the module that knows its gate; before: whether it is known from the source's inputs,
    else from its output; find: (source, args, kwargs, output or None, layer) -> gate [b, 1, d].
    """

    source: Callable[[str], str]
    before: bool
    find: Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any, str], Tensor]


def _as_drawn(pipe: Any, latents: Tensor) -> Tensor:
    return latents


@dataclass(frozen=True)
class Family:
    """What is particular to an architecture.

    pipelines: the diffusers classes it covers; denoiser: the pipeline's attribute; sites: a fullmatch pattern per kind.
    describe(args, kwargs) -> (rows, text tokens, image tokens) of a denoiser call. conditional_rows(pipe, call) ->
    the conditional rows, None if the call has none; raises BackboneError for a layout it cannot explain.
    latent_shape(pipe, height, width) -> one image's initial noise (c, h, w); pack turns a batch of it into what the
    pipeline takes; to_pixels(pipe, latents, height, width) -> what the pipeline's image processor takes.
    size_step: height and width in pixels must be multiples of it. `options` are passed to every call of the pipeline.
    """

    name: str
    pipelines: tuple[str, ...]
    denoiser: str
    sites: Mapping[str, str]
    describe: Callable[[tuple[Any, ...], Mapping[str, Any]], tuple[int, int | None, int | None]]
    conditional_rows: Callable[[Any, Call], slice | None]
    read: ReadTokens
    write: WriteTokens
    default_size: Callable[[Any], int]
    size_step: Callable[[Any], int]
    latent_shape: Callable[[Any, int, int], tuple[int, ...]]
    to_pixels: Callable[[Any, Tensor, int, int], Tensor]
    pack: Callable[[Any, Tensor], Tensor] = _as_drawn
    largest_size: Callable[[Any], int | None] = lambda pipe: None
    float32_latents: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    gate: Gate | None = None


@dataclass(frozen=True)
class Sampling:
    """How a backbone makes its images.

    options: further arguments of the pipeline's call; decode_batch_size: images decoded at once, None for as many as
    were denoised; around(forward, *args, **kwargs): runs the denoiser's forward, if something is to be around it.
    """

    num_steps: int
    guidance_scale: float
    height: int
    width: int
    options: Mapping[str, Any] = field(default_factory=dict)
    decode_batch_size: int | None = None
    around: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Backbone:
    """A pipeline with its family's knowledge of it; `sampling` is None for a pipeline that its user calls himself."""

    name: str
    pipe: Any
    family: Family
    sites: tuple[Site, ...]
    sampling: Sampling | None = None

    @property
    def denoiser(self) -> nn.Module:
        module: nn.Module = getattr(self.pipe, self.family.denoiser)
        return module

    @property
    def layers(self) -> list[str]:
        return [site.layer for site in self.sites]

    def site(self, layer: str) -> Site:
        """Return the site of a layer; raises BackboneError listing what exists."""
        site = self._site_of.get(layer)
        if site is None:
            raise BackboneError(f"Layer {layer!r} is not a site of {self.name}. Its sites: {', '.join(self.layers)}.")
        return site

    def with_layers(self, layers: Sequence[str]) -> "Backbone":
        """Return the backbone with more sites: modules of the denoiser by name, of the kind `other`.

        Raises BackboneError for one that does not exist.
        """
        new = [Site(layer, OTHER) for layer in dict.fromkeys(layers) if layer not in self._site_of]
        for site in new:
            try:
                path_to(uncompiled(self.denoiser), site.module)
            except AttributeError:
                self.site(site.layer)
        return replace(self, sites=(*self.sites, *new)) if new else self

    @cached_property
    def _site_of(self) -> dict[str, Site]:
        return {site.layer: site for site in self.sites}


def common_size(name: str, sizes: set[int]) -> int | None:
    """Return the one size that all rows share; raises BackboneError if they differ."""
    if len(sizes) > 1:
        raise BackboneError(f"The rows of a call have different numbers of {name}: {sorted(sizes)}.")
    return next(iter(sizes), None)
