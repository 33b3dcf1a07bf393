"""How a pipeline is built as a denoiser and a scheduler alone, of a few thousand random weights, and called.

Prompts come as embeddings drawn from the words, so no text encoder is built; nothing is decoded, so no autoencoder is.
"""

import inspect
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from PIL import Image
from torch import Tensor, nn

WIDTH = 32  # of text embeddings
LENGTH = 6  # of texts in tokens
FLOW = ("FlowMatchEulerDiscreteScheduler", {})
EMBEDS = {"prompt_embeds": (LENGTH, WIDTH)}
POOLED = {**EMBEDS, "pooled_prompt_embeds": (WIDTH,)}


@dataclass(frozen=True)
class Tiny:
    """A pipeline's parts, and how it is called."""

    pipeline: str
    """The diffusers class."""
    denoiser: tuple[str, Mapping[str, Any]]
    """The class, and the values of its configuration."""
    text: Mapping[str, tuple[int, ...]]
    """Arguments of the call that give texts, with the shape of one: embeddings, or masks, which are full; empty where
    the class takes prompts alone."""
    guided: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 3.0})
    """Arguments of the call."""
    plain: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    scheduler: tuple[str, Mapping[str, Any]] = FLOW
    parts: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the class, or what makes them."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What is set on the pipeline."""
    published: Mapping[str, Any] = field(default_factory=dict)
    """What only published configurations of the denoiser have."""
    size: int = 64
    """Pixels of a side."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of every call."""
    perturbed: bool = False
    """Whether rows of perturbed attention follow the conditional ones, and change with the prompt too."""
    num_image_tokens: int = 16
    """Into which a denoiser cuts the latents."""
    wording: str = "{}"
    """What a prompt is put into where the class takes prompts alone."""
    num_images: int = 4
    """Of two prompts, unless the class cannot guide several at once."""


def picture(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (90, 160, 40))


def build(tiny: Tiny) -> Any:
    """Build the pipeline with seeded weights, large enough everywhere that every layer counts."""
    pipeline_class = getattr(diffusers, tiny.pipeline)
    if hasattr(pipeline_class, "_backends"):  # what diffusers has in the place of a class that lacks a library
        raise ImportError(f"{tiny.pipeline} needs {', '.join(pipeline_class._backends)}.")
    wanted = list(inspect.signature(pipeline_class.__init__).parameters.values())[1:]
    name, options = tiny.scheduler
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = filled(getattr(diffusers, tiny.denoiser[0])(**tiny.denoiser[1]))
        denoiser.register_to_config(**tiny.published)
        parts = {each.name: None for each in wanted if each.default is each.empty}
        name_of = next(name for name in ("unet", "transformer", "prior", "decoder") if name in parts)
        parts |= {name_of: denoiser, **{key: part() if callable(part) else part for key, part in tiny.parts.items()}}
        parts["scheduler"] = getattr(diffusers, name)(**options)
        pipe = pipeline_class(**parts)
    for key, value in tiny.attributes.items():
        setattr(pipe, key, value)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def filled(denoiser: Any) -> Any:
    """Return a denoiser whose zero-initialised outputs and gates hide nothing of what happens before them."""
    for parameter in denoiser.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return denoiser.eval()


def embedded(words: Sequence[str], shape: tuple[int, ...]) -> Tensor:
    """Return an embedding for each text [n, *shape], the same for the same words."""
    draw = [torch.Generator().manual_seed(zlib.crc32(word.encode())) for word in words]
    return torch.stack([torch.randn(shape, generator=generator) for generator in draw])


def _embedding(name: str, prompts: Sequence[str], shape: tuple[int, ...]) -> Tensor:
    if "seqlens" in name:
        return LENGTH * torch.arange(len(prompts) + 1)
    if "mask" in name:
        return torch.ones(len(prompts), *shape, dtype=torch.bool)
    drawn = embedded(prompts, shape)
    return drawn.transpose(0, 1) if "llama3" in name else drawn  # layers come before rows


def texts_of(tiny: Tiny, prompts: Sequence[str], prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: _embedding(name, prompts, shape) for name, shape in tiny.text.items()}


def make(
    tiny: Tiny,
    pipe: Any,
    prompts: Sequence[str] = ("a face", "a dog"),
    negative: str = "bad",
    guided: bool = True,
    num_steps: int = 2,
    **more: Any,
) -> Tensor:
    """Return the latents of two images for each prompt: not every class repeats embeddings that it is given."""
    takes = inspect.signature(type(pipe).__call__).parameters
    words = [prompt for prompt in prompts for _ in range(2)][: tiny.num_images]
    given = texts_of(tiny, words) | (texts_of(tiny, [negative] * len(words), "negative_") if guided else {})
    if not tiny.text:
        given |= {"prompt": list(map(tiny.wording.format, words)), "negative_prompt": [negative] * len(words)}
    given |= {
        "output_type": "latent",
        "height": tiny.size,
        "width": tiny.size,
        **(tiny.guided if guided else tiny.plain),
        **tiny.more,
        **more,
    }
    generator = [torch.Generator().manual_seed(seed) for seed in range(len(words))]
    if "guider" in pipe.components:
        pipe.guider = diffusers.AdaptiveProjectedMixGuidance() if guided else None
    given = {name: value for name, value in given.items() if name in takes}
    with torch.random.fork_rng(devices=[]):  # a picture is encoded by chance
        torch.manual_seed(0)
        made = pipe(num_inference_steps=num_steps, generator=generator, return_dict=False, **given)
    return made if isinstance(made, Tensor) else made[0]
