"""How a pipeline of any class is called for a measurement: two prompts with two images each, guided or not, few steps.

A pipeline without text encoders gets embeddings drawn from the words.
"""

import inspect
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.text import did_you_mean

PROMPTS, OTHERS = ("a face", "a dog"), ("a wolf", "a hat")
NEGATIVE = "bad"
NUM_IMAGES = 4  # two of each prompt
DENOISERS = ("transformer", "unet", "prior", "decoder")
# Arguments that would bring in other networks or sizes, where a call has them.
QUIET = {
    "use_resolution_binning": False, "enable_prompt_rewrite": False, "use_pe": False, "_auto_resize": False,
    "complex_human_instruction": None, "clean_caption": False, "output_type": "latent",
}  # fmt: skip
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
GUIDED, PLAIN = 3.0, {"true_cfg_scale": 1.0, "guidance_scale": 0.0, "pag_scale": 0.0}


@dataclass(frozen=True)
class Caller:
    """A pipeline, and how it is called."""

    pipe: Any
    num_steps: int = 2
    size: int | None = None
    """Pixels of a side; None for a few times what the pipeline's latents are cut into."""
    texts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Arguments that give texts as embeddings, with the shape of one; none where the pipeline reads prompts."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of every call."""

    @property
    def takes(self) -> dict[str, inspect.Parameter]:
        """The arguments of a call by name; of a class that takes **kwargs, those of the class it derives from too."""
        found: dict[str, inspect.Parameter] = {}
        for base in type(self.pipe).__mro__:
            if "__call__" in vars(base):
                named = inspect.signature(base.__call__).parameters
                found |= {name: each for name, each in named.items() if name not in found and each.kind in NAMED}
                if all(each.kind is not each.VAR_KEYWORD for each in named.values()):
                    break
        return {name: each for name, each in found.items() if name != "self"}

    @property
    def guides(self) -> str:
        """The argument that switches guidance on, empty if there is none."""
        return next((name for name in ("true_cfg_scale", "guidance_scale") if name in self.takes), "")

    def make(self, prompts: Sequence[str] = PROMPTS, negative: str = NEGATIVE, guided: bool = True) -> Tensor:
        """Return the latents; raises BackboneError for a pipeline that cannot be called with prompts, or not so."""
        words = [prompt for prompt in prompts for _ in range(NUM_IMAGES // len(prompts))]
        given = {**self._texts(words, negative, guided), **QUIET, "num_inference_steps": self.num_steps}
        side = self.size or 16 * getattr(self.pipe, "vae_scale_factor", 4)
        given |= {"height": side, "width": side, "max_area": side * side}
        given |= {self.guides: GUIDED} if guided else PLAIN
        given |= {
            "generator": [torch.Generator().manual_seed(seed) for seed in range(len(words))],
            "return_dict": False,
        }
        takes = self.takes
        for name in self.more:  # which the **kwargs of a pipeline would swallow
            if name not in takes:
                raise BackboneError(
                    f"{name} is no argument of {type(self.pipe).__name__}.{did_you_mean(name, list(takes))} "
                    f"It takes: {', '.join(takes)}."
                )
        given = {name: value for name, value in given.items() if name in takes} | dict(self.more)
        if missing := [each.name for each in takes.values() if each.default is each.empty and each.name not in given]:
            raise BackboneError(
                f"A {type(self.pipe).__name__} wants {', '.join(missing)} besides a prompt, which this check does not "
                "have: only pipelines that make an image of a prompt alone are measured."
            )
        try:
            with torch.no_grad():
                return tensor_of(self.pipe(**given)[0])
        except BackboneError:
            raise
        except Exception as error:
            built = " It was built of defaults and may lack parts: save one of any size, and check its folder."
            picture = " It takes a picture (image=), and is called here with prompts alone."
            hint = f"{built if self.texts else ''}{picture if 'image' in takes else ''}"
            raise BackboneError(
                f"A call of {type(self.pipe).__name__} ended in {type(error).__name__}: {str(error).rstrip('.')}. Its "
                f"arguments were {', '.join(given)}; another --size or --call may do.{hint}"
            ) from error

    def _texts(self, words: list[str], negative: str, guided: bool) -> dict[str, Any]:
        if not self.texts:
            return {"prompt": words} | ({"negative_prompt": [negative] * len(words)} if guided else {})
        given = {"prompt": None, **_embedded(self.texts, words)}
        if guided:
            others = _embedded(self.texts, [negative] * len(words))
            given |= {"negative_prompt": None, **{f"negative_{name}": value for name, value in others.items()}}
        return given


def tensor_of(images: Any) -> Tensor:
    """Return latents, or pictures as a pipeline of pixels gives them, as one tensor."""
    if isinstance(images, Tensor):
        return images
    if isinstance(images, (list, tuple)) and all(isinstance(image, Tensor) for image in images):
        return torch.stack(list(images))
    import numpy as np

    return torch.from_numpy(np.stack([np.asarray(image) for image in images]))


def denoiser_of(pipe: Any) -> str:
    """Return the attribute that holds a pipeline's denoiser; raises BackboneError where no part is called so."""
    found = [name for name in DENOISERS if isinstance(getattr(pipe, name, None), nn.Module)]
    if not found:
        raise BackboneError(
            f"A {type(pipe).__name__} has none of {', '.join(DENOISERS)}, so its denoiser is not known."
        )
    return found[0]


def _embedded(texts: Mapping[str, tuple[int, ...]], words: Sequence[str]) -> dict[str, Tensor]:
    """Return an embedding [n, *shape] of each text, the same for the same words; a mask is full."""
    draws = [zlib.crc32(word.encode()) for word in words]
    return {
        name: torch.ones(len(words), *shape, dtype=torch.bool)
        if "mask" in name
        else torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(draw)) for draw in draws])
        for name, shape in texts.items()
    }
