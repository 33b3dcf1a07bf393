"""From jobs to images: batches, one seed per image, the same noise whatever the batch."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, Sampling
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.prompt_embeddings import remembered_prompts

log = logging.getLogger(__name__)

SAMPLER_SEED = 2**31  # added to a job's seed for what stochastic schedulers draw, apart from the initial noise


@dataclass(frozen=True)
class Sample:
    """One finished image with the job that asked for it."""

    job: Job
    image: Any  # PIL.Image.Image


def batches(jobs: list[Job], batch_size: int) -> Iterator[list[Job]]:
    """Yield the jobs in order, batch_size at a time."""
    for start in range(0, len(jobs), batch_size):
        yield jobs[start : start + batch_size]


@torch.no_grad()  # not inference_mode: a hook may compute gradients of what it sees
def denoise(backbone: Backbone, jobs: list[Job]) -> Tensor:
    """Run the denoising loop for one batch of jobs and return its final latents, as the pipeline keeps them.

    Raises MemoryError if the batch does not fit, FloatingPointError if latents are not finite.
    """
    pipe = backbone.pipe
    with _clear_memory_error(len(jobs), "compute.batch_size"), remembered_prompts(pipe):
        result: Tensor = pipe(**pipeline_arguments(backbone, jobs))[0]
    _check_finite(result, jobs, "latents")
    return result


def pipeline_arguments(backbone: Backbone, jobs: list[Job]) -> dict[str, Any]:
    """Return what a pipeline is called with for a batch of jobs.

    Noise is drawn in float32 from each job's own seed, so an image does not depend on what shares its batch.
    """
    sampling, family, pipe = _sampling(backbone), backbone.family, backbone.pipe
    assert family.latent_shape is not None
    shape = family.latent_shape(pipe, sampling.height, sampling.width)
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(job.seed)) for job in jobs])
    options = {
        name: [value] * len(jobs) if isinstance(value, str) and "prompt" in name else value  # as negative_prompt
        for name, value in sampling.options.items()
    }
    dtype = torch.float32 if family.float32_latents else next(backbone.denoiser.parameters()).dtype
    given = dict(
        prompt=[job.prompt for job in jobs],
        latents=family.pack(pipe, noise).to(pipe._execution_device, dtype),
        generator=[torch.Generator().manual_seed(job.seed + SAMPLER_SEED) for job in jobs],
        num_inference_steps=sampling.num_steps, guidance_scale=sampling.guidance_scale,
        height=sampling.height, width=sampling.width, output_type="latent", return_dict=False, **options,
    )  # fmt: skip
    return family.arguments(pipe, given)


@torch.no_grad()
def decode(backbone: Backbone, jobs: list[Job], latents: Tensor) -> list[Sample]:
    """Decode latents to images, paired with their jobs.

    Raises MemoryError if a single one does not fit, FloatingPointError if pixels are not finite. A part that
    compute.offload brought to the device for it leaves again.
    """
    sampling, pipe, to_pixels = _sampling(backbone), backbone.pipe, backbone.family.to_pixels
    assert to_pixels is not None
    size, samples = sampling.decode_batch_size or len(jobs), list[Sample]()
    while len(samples) < len(jobs):
        part = slice(len(samples), len(samples) + size)
        try:
            with _clear_memory_error(len(jobs[part]), "decoding"):
                pixels = to_pixels(pipe, latents[part], sampling.height, sampling.width)
        except MemoryError as error:
            if len(jobs[part]) == 1:
                raise
            size = len(jobs[part]) // 2
            log.warning("%s Decoding %d at once; compute.decode_batch_size=%d begins with that.", error, size, size)
            continue
        _check_finite(pixels, jobs[part], "pixels")
        images = pipe.image_processor.postprocess(pixels.detach(), output_type="pil")
        samples += [Sample(job, image) for job, image in zip(jobs[part], images, strict=True)]
    pipe.maybe_free_model_hooks()
    return samples


def _check_finite(values: Tensor, jobs: list[Job], name: str) -> None:
    """Raise FloatingPointError naming the images that would come out black."""
    finite = torch.isfinite(values).flatten(1).all(1).tolist()
    if not all(finite):
        broken = [job.image_id for job, is_finite in zip(jobs, finite, strict=True) if not is_finite]
        raise FloatingPointError(
            f"The {name} of {len(broken)} of {len(jobs)} image(s) are not finite ({', '.join(broken[:8])}): compute in "
            "bfloat16 or float32 (compute.dtype), or steer by less (alpha)."
        )


def _sampling(backbone: Backbone) -> Sampling:
    if backbone.sampling is None:
        raise ValueError(f"{backbone.name} was attached, not loaded: call its pipeline yourself.")
    return backbone.sampling


@contextmanager
def _clear_memory_error(num_images: int, setting: str) -> Iterator[None]:
    """Raise MemoryError in a full device's place, its cache emptied, so that a smaller batch can be tried."""
    full = False
    try:
        yield
    except torch.OutOfMemoryError:
        full = True  # raised below, when the frames that hold the batch's tensors are gone
    if full:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise MemoryError(f"{num_images} image(s) at once do not fit into memory ({setting}).")
