"""How often the images of a prompt show each option."""

from collections.abc import Sequence

import numpy as np

from icm_pipeline.arrays import Floats
from icm_pipeline.backbones.base import Backbone
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job, first_seed
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.labelers.base import Labeler
from icm_pipeline.metrics.outcomes import hard_labels
from icm_pipeline.progress import Work


def shares_of(
    backbone: Backbone, labeler: Labeler, settings: Settings, prompts: Sequence[str], num_images: int, turn: int,
    work: Work,
) -> Floats:  # fmt: skip
    """Return the share of each option in so many images of each prompt [prompts, K], made with seeds of this turn.

    Images that show no option are left out; raises ValueError for a prompt of which none is left.
    """
    first = first_seed(settings.seed, "tuning") + turn * num_images * len(prompts)
    jobs = [
        Job(f"{index:06d}", prompts[index // num_images], index // num_images, first + index)
        for index in range(num_images * len(prompts))
    ]
    name, found = settings.attribute.name, list[int]()

    def make(batch: list[Job]) -> Batch:
        return Batch(batch, decode(backbone, batch, denoise(backbone, batch)))

    for made in fitting([jobs], make, settings.compute.batch_size):
        answers = labeler.label([sample.image for sample in made.samples], {name: settings.attribute.options})
        found += hard_labels(answers[name]).tolist()
        work.advance(len(made.jobs))
    labels = np.array(found).reshape(len(prompts), num_images)
    for prompt, row in zip(prompts, labels, strict=True):
        if (row < 0).all():
            raise ValueError(
                f"The labeler sees no option in {num_images} images of {prompt!r}: leave that concept out."
            )
    counts = (labels[:, :, None] == np.arange(len(settings.attribute.options))).sum(1)
    shares: Floats = counts / counts.sum(1, keepdims=True)
    return shares
