"""What methods train on: latents that the model makes of prompts with and without an option's name.

Seeds are of a stream of their own.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job, first_seed
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.methods.denoising import Denoiser, Noisy, seen_run
from icm_pipeline.methods.wordings import Wording, wordings_of
from icm_pipeline.metrics.distributions import quotas
from icm_pipeline.progress import working
from icm_pipeline.store.files import written_whole

LATENTS = "latents.safetensors"


@dataclass(frozen=True)
class Examples:
    """Latents of prompts that name an option."""

    latents: Tensor
    """[n, ...]"""
    neutral: list[str]
    """What each one's prompt would be without the option."""
    options: Tensor
    """[n]"""

    def noised(
        self, denoiser: Denoiser, size: int, generator: torch.Generator
    ) -> tuple[Noisy, list[str], Tensor, Tensor]:
        """Draw some with noise: the noisy latents, neutral prompts, options [size] and what is to be predicted."""
        chosen = torch.randint(len(self.neutral), (size,), generator=generator)
        steps = torch.randint(denoiser.num_steps, (size,), generator=generator)
        clean = self.latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        prompts = [self.neutral[number] for number in chosen.tolist()]
        noisy = denoiser.noised(clean, noise, steps)
        return noisy, prompts, self.options[chosen], denoiser.target(clean, noise, steps)


def make_examples(
    backbone: Backbone, settings: Settings, shares: Sequence[float], num_images: int, folder: Path
) -> Examples:
    """Make so many, a share of them of each option; those that the folder has from before are not made again."""
    wordings = wordings_of(settings)
    options = np.repeat(np.arange(len(shares)), quotas(num_images, list(shares)))
    places = np.concatenate([np.arange((options == option).sum()) for option in range(len(shares))])
    chosen = [wordings[place % len(wordings)] for place in places]
    base = first_seed(settings.seed, "fit")
    jobs = [
        Job(f"{index:06d}", wording.named[option], index, base + index)
        for index, (wording, option) in enumerate(zip(chosen, options, strict=True))
    ]
    path, found = folder / LATENTS, list[Tensor]()
    if path.exists():
        found.append(load_file(path)["latents"])
    done = sum(map(len, found))

    def make(batch: list[Job]) -> Batch:
        found.append(denoise(backbone, batch).cpu())
        return Batch(batch, [])

    with working("fit: images", num_images, "image", done) as work:
        for made in fitting([jobs[done:]], make, settings.compute.batch_size):
            with written_whole(path) as partial:
                save_file({"latents": torch.cat(found)}, partial)
            work.advance(len(made.jobs))
    device = next(backbone.denoiser.parameters()).device
    return Examples(torch.cat(found).to(device), [wording.neutral for wording in chosen], torch.from_numpy(options))


class EditedRuns:
    """Latents of neutral prompts on their way to pictures, made anew by the edited model every few updates."""

    def __init__(
        self, backbone: Backbone, settings: Settings, wordings: Sequence[Wording],
        edited: Callable[[Tensor], AbstractContextManager[Any]],
    ) -> None:  # fmt: skip
        """edited: from the option of each image [n] to the context in which the model is edited."""
        self._backbone, self._wordings, self._edited = backbone, wordings, edited
        self._size, self._every = settings.method.params["batch"], settings.method.params["refresh"]
        self._first = first_seed(settings.seed, "fit")
        self._run: tuple[Tensor, list[Wording]] | None = None
        self.options = torch.arange(self._size) % len(wordings[0].named)
        """Of each row of a draw."""

    def num_images(self, updates: int) -> int:
        """Return how many images so many updates take."""
        return -(-updates // self._every) * self._size

    def draw(self, update: int, generator: torch.Generator) -> tuple[Noisy, list[Wording]]:
        """Return every image of the last run at some step, and its wording."""
        if self._run is None or update % self._every == 0:
            self._run = self._made(update - update % self._every)
        latents, chosen = self._run
        steps = torch.randint(len(latents), (self._size,), generator=generator)
        return Noisy(latents[steps, torch.arange(self._size)], steps), chosen

    def _made(self, update: int) -> tuple[Tensor, list[Wording]]:
        first = self._first + update // self._every * self._size
        drawn = torch.Generator().manual_seed(first)
        numbers = torch.randint(len(self._wordings), (self._size,), generator=drawn).tolist()
        chosen = [self._wordings[number] for number in numbers]
        jobs = [Job(f"{i:06d}", wording.neutral, i, first + i) for i, wording in enumerate(chosen)]
        with torch.no_grad(), self._edited(self.options):
            run, _ = seen_run(self._backbone, jobs)
        return run.latents, chosen
