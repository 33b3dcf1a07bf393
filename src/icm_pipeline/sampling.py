"""From jobs to images: batches, one seed per image, the same noise whatever the batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.prompts import Job


@dataclass(frozen=True)
class Sample:
    """One finished image with the job that asked for it."""

    job: Job
    image: Any  # PIL.Image.Image


def batches(jobs: list[Job], batch_size: int) -> Iterator[list[Job]]:
    for start in range(0, len(jobs), batch_size):
        yield jobs[start : start + batch_size]


@torch.inference_mode()
def denoise(backbone: Backbone, jobs: list[Job]) -> Tensor:
    """Run the denoising loop for one batch of jobs and return its final latents [n, ...].

    Noise is drawn in float32 from each job's own seed, so an image does not depend on what shares its batch. Raises
    MemoryError if the batch does not fit.
    """
    dtype = next(backbone.denoiser.parameters()).dtype
    latents = backbone.draw_latents([job.seed for job in jobs])
    try:
        result: Tensor = backbone.pipe(
            prompt=[job.prompt for job in jobs],
            latents=latents.to(backbone.device, dtype),
            num_inference_steps=backbone.num_steps,
            guidance_scale=backbone.guidance_scale,
            output_type="latent",
            return_dict=False,
        )[0]
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"{len(jobs)} images at once do not fit into memory: lower model.batch_size.") from error
    return result


@torch.inference_mode()
def decode(backbone: Backbone, jobs: list[Job], latents: Tensor) -> list[Sample]:
    """Decode latents to images, paired with their jobs."""
    return [Sample(job, image) for job, image in zip(jobs, backbone.decode(latents), strict=True)]
