"""Image sets of noise with activations of noise, made as the stages make them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job, make_jobs
from icm_pipeline.generation.sampling import Sample
from icm_pipeline.hooks.recording import Recording
from icm_pipeline.images.making import plan_images, store_images
from icm_pipeline.store.shards import WHOLE, Share

JOBS = make_jobs(['a face of a "nurse", smiling', "a doctor"], 7, 0, "probe")  # 14: the last shard is short
LAYERS = {"mid.attn1": 3, "up.attn1": 2}
MakeBatch = Callable[[list[Job]], Batch]


def picture_of(job: Job) -> Image.Image:
    pixels = np.random.default_rng(job.seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(pixels)


def activations_of(jobs: list[Job]) -> dict[str, torch.Tensor]:
    return {
        layer: torch.stack([torch.randn(2, d, generator=torch.Generator().manual_seed(job.seed)) for job in jobs])
        for layer, d in LAYERS.items()
    }


def recording_of(jobs: list[Job]) -> Recording:
    return Recording(dict.fromkeys(LAYERS, "self_attention"), [0, 1], [1.0, 0.5], activations_of(jobs))


def make_both(jobs: list[Job]) -> Batch:
    return Batch(jobs, [Sample(job, picture_of(job)) for job in jobs], recording_of(jobs))


def make_set(
    folder: Path,
    make_batch: MakeBatch = make_both,
    batch_size: int = 2,
    shard_size: int = 4,
    options: Sequence[str] = (),
    share: Share = WHOLE,
    grow: bool = False,
) -> bool:
    """Make the set, or a share of it, as the stages do; return whether it is complete."""
    images = plan_images(folder, JOBS, batch_size, shard_size, options, share)
    return store_images(images, fitting(images.missing, make_batch, batch_size, grow), "test")
