"""Plans for `hooks.looking` that choose what a test names, and calls for two images of each of two prompts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Site
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.looking import Choice
from icm_pipeline.hooks.recording import Recording
from icm_pipeline.hooks.repeats import Schedule

SIZES = {"sana": 32, "flux": 16, "z_image": 16, "pixart": 16}
OPTIONS: dict[str, dict[str, Any]] = {
    "sana": {"use_resolution_binning": False, "complex_human_instruction": None},
    "pixart": {"use_resolution_binning": False, "clean_caption": False},
}
NUM_IMAGES = 4


def make(pipe: Any, name: str = "sd", num_steps: int = 5, **more: Any) -> Tensor:
    """Return the latents of two images of each of two prompts."""
    size = SIZES.get(name)
    given = {**OPTIONS.get(name, {}), **({} if size is None else {"height": size, "width": size}), **more}
    with torch.random.fork_rng(devices=[]):  # what a scheduler draws without a generator
        torch.manual_seed(3)
        result: Tensor = pipe(
            prompt=["a face", "dog"], num_images_per_prompt=2, num_inference_steps=num_steps, output_type="latent",
            generator=torch.Generator().manual_seed(0), **given,
        ).images  # fmt: skip
    return result


class AddOne:
    """Add one to the tokens of some images, None for all, from a step on."""

    def __init__(self, first: int, images: Sequence[int] | None = None) -> None:
        self._first, self._images = first, images

    def __call__(self, tokens: Tensor, site: Site, clock: StepClock) -> Tensor | None:
        if clock.step < self._first:
            return None
        if self._images is None or clock.images is not None:
            return tokens + 1
        added = tokens.clone()
        added[list(self._images)] += 1
        return added


class Chosen:
    """A plan that changes the images that a test names."""

    def __init__(self, steps: range, images: Sequence[int]) -> None:
        self.steps, self.images = steps, images
        self.recordings: list[Recording] = []
        self.num_ended = 0

    def span(self, schedule: Schedule) -> range:
        return self.steps

    def decide(self, recording: Recording, clock: StepClock) -> Choice:
        self.recordings.append(recording)
        return Choice(self.images, AddOne(self.steps.start, self.images))

    def end_run(self, clock: StepClock) -> None:
        self.num_ended += 1
