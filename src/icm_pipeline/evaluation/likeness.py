"""How much of each picture stayed, and how well it fits its prompt: CLIP-I, CLIP-T and SSIM of every image."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icm_pipeline.arrays import Floats, spread
from icm_pipeline.evaluation.judging import Judging
from icm_pipeline.evaluation.pairs import ImagePairs
from icm_pipeline.images.pictures import read_picture
from icm_pipeline.images.table import ImageRow
from icm_pipeline.metrics.similarity import mapped_cosine
from icm_pipeline.metrics.structure import structural_similarity
from icm_pipeline.progress import working

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Likeness:
    """Figures of every image [n], NaN where the picture, its twin or its prompt is not there."""

    clip_i: Floats
    clip_t_original: Floats
    clip_t: Floats
    ssim: Floats


def likeness_of(judging: Judging, pairs: ImagePairs) -> Likeness:
    """Return the likeness of each image to its twin and to its prompt."""
    nothing = np.full(len(pairs.rows), np.nan)
    embedded = {side: judging.embed(rows) for side, rows in pairs.sides.items()}
    prompts = [row.prompt for row in pairs.rows]
    fits = dict.fromkeys(("original", "steered"), nothing)
    if any(prompts):
        texts = spread([bool(prompt) for prompt in prompts], judging.embed_prompts([p for p in prompts if p]))
        fits |= {side: mapped_cosine(rows, texts) for side, rows in embedded.items()}
    if pairs.twins is None:
        return Likeness(nothing, nothing, fits["steered"], nothing)
    clip_i = mapped_cosine(embedded["steered"], embedded["original"])
    return Likeness(clip_i, fits["original"], fits["steered"], _ssim(pairs.twins, pairs.rows))


def mean_of(values: Floats) -> float | None:
    """Return the mean of what is there, None if nothing is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else None


def _ssim(twins: Sequence[ImageRow], rows: Sequence[ImageRow]) -> Floats:
    """Return SSIM of each pair; NaN, and told, where the two differ in size or are too small for it."""
    found, refused = np.full(len(rows), np.nan), []
    with working("SSIM", len(rows), "pair") as work:
        for index, (twin, row) in enumerate(zip(twins, rows, strict=True)):
            if not twin.problem and not row.problem:
                try:
                    found[index] = structural_similarity(*(np.asarray(read_picture(side.path)) for side in (twin, row)))
                except ValueError as error:
                    refused.append(f"{row.image_id}: {error}")
            work.advance()
    if refused:
        log.warning("no SSIM of %d of %d pairs, the first %s", len(refused), len(rows), refused[0])
    return found
