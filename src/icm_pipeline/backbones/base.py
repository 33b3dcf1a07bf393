"""The contract of an architecture: where its sites are, what their outputs mean, which rows of a call are conditional.

Everything that differs between model families is data or a small pure function of a `Family`; nothing else in the
project asks which model it is looking at.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from icm_pipeline.backbones.modules import has_module, path_to, uncompiled

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


class Described(NamedTuple):
    """What a call of the denoiser says of itself."""

    latents: Tensor
    """What is denoised; where that is a list, its first row."""
    num_rows: int
    num_text_tokens: int | tuple[int, ...] | None = None
    num_image_tokens: int | None = None
    skips_layers: bool = False


@dataclass(frozen=True)
class Call:
    """One call of the denoiser."""

    num_rows: int
    """Its batch."""
    num_images: int
    """The images of the batch, whatever guidance adds to them."""
    index: int
    """Which call since the scheduler's last step, from 0."""
    num_text_tokens: int | tuple[int, ...] | None = None
    """Of every row, or of each where they differ; None where the call does not say."""
    num_image_tokens: int | None = None
    repeats: bool = False
    """Whether the step's first call had the same latents."""
    skips_layers: bool = False
    """Whether some layers are left out of it."""
    prediction: str | None = None
    """What the pipeline's guider calls the prediction that it makes; None where there is no guider."""

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
    """Where the AdaLN gate of a gated site comes from."""

    source: Callable[[str], str]
    """From a site's module to the module that knows its gate."""
    before: bool
    """Whether the gate is known from the source's inputs, else from its output."""
    find: Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any, str], Tensor]
    """(source, args, kwargs, output or None, layer) -> gate [b, 1, d]."""


@dataclass(frozen=True)
class Family:
    """What is particular to an architecture."""

    name: str
    pipelines: tuple[str, ...]
    """The diffusers classes that make an image of a prompt alone."""
    sites: Mapping[str, str]
    """A pattern by kind that matches whole names of modules."""
    describe: Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Described]
    """(pipe, args, kwargs) of a denoiser call."""
    rows: str
    """Which rows of a call are conditional: the name of one of `guidance.LAYOUTS`."""
    tokens: str | Mapping[str, str]
    """Where in an output the image's tokens are: a name of `formats.ORDERS`, or names by a pattern of whole modules."""
    default_size: Callable[[Any], int] = lambda pipe: pipe.default_sample_size * pipe.vae_scale_factor
    """pipe -> pixels of an image's side where none is set."""
    size_step: Callable[[Any], int] = lambda pipe: 2 * pipe.vae_scale_factor
    """pipe -> what height and width in pixels must be multiples of."""
    latent_shape: Callable[[Any, int, int], tuple[int, ...]] | None = None
    """(pipe, height, width) -> one image's initial noise (c, h, w); None for a family that is attached to alone."""
    to_pixels: Callable[[Any, Tensor, int, int], Tensor] | None = None
    """(pipe, latents, height, width) -> what the pipeline's image processor takes; None as above."""
    bottleneck: str = ""
    """The middle block, a module; empty if there is none. It is a site only where one asks for it."""
    also: tuple[str, ...] = ()
    """The classes of the same layout that want a picture besides: img2img, inpaint, ControlNet."""
    denoiser: str = "transformer"
    """The pipeline's attribute."""
    text: str = ""
    """A pattern that matches whole names of modules whose tokens are not the image's."""
    tokenizer: str = "tokenizer"
    """The pipeline's attribute whose tokens are those of the text that attention sees; empty if it is no single one."""
    timestep: Callable[[Any, Mapping[str, Any]], Any] = lambda pipe, inputs: inputs["timestep"]
    """(pipe, the inputs of a denoiser call by name) -> its timestep, as the scheduler counts."""
    pack: Callable[[Any, Tensor], Tensor] = lambda pipe, latents: latents
    """(pipe, a batch of initial noise) -> what the pipeline takes as latents."""
    largest_size: Callable[[Any], int | None] = lambda pipe: None
    """pipe -> the most pixels of a side, None where there is no limit."""
    made_size: Callable[[Any, int, int], tuple[int, int]] = lambda pipe, height, width: (height, width)
    """(pipe, height, width) -> the height and width nearest to these that the pipeline makes as they are asked for."""
    float32_latents: bool = False
    """Whether the pipeline keeps its latents in float32 whatever the denoiser's dtype."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Passed to every call of the pipeline."""
    arguments: Callable[[Any, dict[str, Any]], dict[str, Any]] = lambda pipe, given: given
    """(pipe, what a call is given) -> the same as this class takes it."""
    shared_inputs: tuple[str, ...] = ()
    """The denoiser's inputs that have no rows, whatever their length, as the places of tokens."""
    inputs_by_row: tuple[str, ...] = ()
    """The denoiser's inputs that are a list with an item for each row."""
    inputs_by_layer: tuple[str, ...] = ()
    """The denoiser's inputs [layers, rows, ...], whose rows come second."""
    gate: Gate | None = None
    check_run: Callable[[Mapping[str, Any]], None] = lambda inputs: None
    """The inputs of a run's first call by name; raises BackboneError for tokens that are neither image nor text."""

    def site(self, layer: str) -> Site:
        """Return the site at a layer, of the kind `other` if no pattern describes it; raises BackboneError for text."""
        module = layer.removesuffix(GATED)
        if self.text and re.fullmatch(self.text, module):
            raise BackboneError(f"{module} gives text tokens, and only image tokens are recorded and changed.")
        kind = next((kind for kind, pattern in self.sites.items() if re.fullmatch(pattern, module)), OTHER)
        kind = "bottleneck" if module == self.bottleneck else kind
        if module == layer:
            return Site(layer, kind)
        if kind == OTHER:
            raise BackboneError(f"No gate is known behind {module}: use the layer itself.")
        return Site(layer, f"gated_{kind}")

    @property
    def orders(self) -> Mapping[str, str]:
        """Return `tokens` as names by a pattern, also where one is that of all modules."""
        return {".*": self.tokens} if isinstance(self.tokens, str) else self.tokens

    def timestep_of(self, pipe: Any, inputs: Mapping[str, Any]) -> Any:
        """Return `timestep` of a denoiser call's inputs by name; raises BackboneError for one that is not there."""
        try:
            return self.timestep(pipe, inputs)
        except KeyError as error:
            raise BackboneError(
                f"{self.name} reads the timestep from {error}, and the denoiser is given: {', '.join(inputs)}."
            ) from error

    def described(self, pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described:
        """Return what `describe` says of a denoiser call; raises BackboneError for anything else than a Described."""
        said = self.describe(pipe, args, kwargs)
        if not isinstance(said, Described):
            raise BackboneError(f"The describe of {self.name} gave a {type(said).__name__}: return a Described.")
        return said


@dataclass(frozen=True)
class Sampling:
    """How a backbone makes its images."""

    num_steps: int
    guidance_scale: float
    height: int
    width: int
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the pipeline's call."""
    decode_batch_size: int | None = None
    """Images decoded at once, None for as many as were denoised."""


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
        return getattr(self.pipe, self.family.denoiser)

    @property
    def layers(self) -> list[str]:
        return [site.layer for site in self.sites]

    def with_bottleneck(self) -> "Backbone":
        """Return the backbone with its middle block as a site too; raises BackboneError where there is none."""
        block = self.family.bottleneck
        if not block or getattr(uncompiled(self.denoiser), block, None) is None:
            raise BackboneError(f"{self.name} has no bottleneck: of the models known here only UNets have one.")
        return self.with_layers([block])

    def site(self, layer: str) -> Site:
        """Return the site of a layer; raises BackboneError listing what exists."""
        if layer not in self._site_of:
            raise BackboneError(f"Layer {layer!r} is not a site of {self.name}. Its sites: {', '.join(self.layers)}.")
        return self._site_of[layer]

    def with_layers(self, layers: Sequence[str]) -> "Backbone":
        """Return the backbone with more sites, modules of the denoiser by name.

        Raises BackboneError for one that does not exist, gives text or is another part's too.
        """
        new = [self.family.site(layer) for layer in dict.fromkeys(layers) if layer not in self._site_of]
        for site in new:
            self.check_own(site)
        return replace(self, sites=(*self.sites, *new)) if new else self

    def check_own(self, site: Site) -> None:
        """Raise BackboneError for a module that the denoiser lacks, or that another part runs too (a ControlNet)."""
        try:
            module = path_to(uncompiled(self.denoiser), site.module)[-1]
        except AttributeError:
            self.site(site.layer)  # lists what exists
            raise
        for name, part in vars(self.pipe).items():
            if isinstance(part, nn.Module) and has_module(part, module) and not has_module(part, self.denoiser):
                raise BackboneError(
                    f"{site.layer} is a part of this pipeline's {name} too, which runs it apart from the "
                    f"{self.family.denoiser}, so whose tokens a hook would see is not known. Name another layer: `icm "
                    f"models {self.family.name}` says which there are."
                )

    @cached_property
    def _site_of(self) -> dict[str, Site]:
        return {site.layer: site for site in self.sites}


def common_size(name: str, sizes: set[int]) -> int | None:
    """Return the one size that all rows share; raises BackboneError if they differ."""
    if len(sizes) > 1:
        raise BackboneError(f"The rows of a call have different numbers of {name}: {sorted(sizes)}.")
    return next(iter(sizes), None)
