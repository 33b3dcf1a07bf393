"""How much of each image was preserved, and how well it fits its prompt: CLIP-I, CLIP-T and SSIM."""

import logging
from collections.abc import Iterable, Sequence
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
from icm_pipeline.results.evaluation import SIDES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Likeness:
    """Figures of one image; NaN without the picture, its twin or its prompt."""

    clip_i: float
    clip_t_original: float
    clip_t: float
    ssim: float


def likeness_of(judging: Judging, pairs: ImagePairs) -> list[Likeness]:
    """Return the likeness of each image to its twin and to its prompt."""
    nothing = np.full(len(pairs.rows), np.nan)
    embedded = {side: judging.embed(rows) for side, rows in pairs.sides.items()}
    prompts = [row.prompt for row in pairs.rows]
    fits = dict.fromkeys(SIDES, nothing)
    if any(prompts):
        texts = spread([bool(prompt) for prompt in prompts], judging.embed_prompts([p for p in prompts if p]))
        fits |= {side: mapped_cosine(rows, texts) for side, rows in embedded.items()}
    clip_i = ssim = nothing
    if pairs.twins is not None:
        clip_i, ssim = mapped_cosine(embedded["steered"], embedded["original"]), _ssim(pairs.twins, pairs.rows)
    return [Likeness(*row) for row in zip(clip_i, fits["original"], fits["steered"], ssim, strict=True)]


def mean_of(values: Iterable[float]) -> float | None:
    """Return the mean of the values that are not NaN; None if there are none."""
    there = np.array([value for value in values if not np.isnan(value)])
    return float(there.mean()) if len(there) else None


def _ssim(twins: Sequence[ImageRow], rows: Sequence[ImageRow]) -> Floats:
    """Return SSIM of each pair; NaN, with a warning, if the two differ in size or are too small."""
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
