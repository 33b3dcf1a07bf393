"""What the stages that make images share."""

import logging
from collections.abc import Callable, Sequence

from icm_pipeline.generation.batches import Batch
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.prefixes import PrefixStore
from icm_pipeline.images.making import make_image_set
from icm_pipeline.images.sheet import draw_sheet
from icm_pipeline.images.table import IMAGES, SAMPLES
from icm_pipeline.pipeline.stage import StageContext

log = logging.getLogger(__name__)


def make_images(
    context: StageContext,
    title: str,
    jobs: list[Job],
    make_batch: Callable[[list[Job]], Batch],
    options: Sequence[str] = (),
) -> bool:
    """Make a stage's images, or its share of them, see `make_image_set`; with all of them comes a contact sheet."""
    settings = context.settings
    complete = make_image_set(
        context.folder,
        jobs,
        make_batch,
        settings.model.batch_size,
        settings.generate.shard_size,
        title,
        options,
        context.share,
        grow=settings.model.grow_batch,
    )
    if complete and (context.folder / IMAGES).exists():
        draw_sheet(context.folder / SAMPLES, context.folder / IMAGES)
    return complete


def prefix_store(context: StageContext) -> PrefixStore | None:
    """Return where the steps before the first steered one are kept for all runs with these images, if they are."""
    return PrefixStore(context.prefixes) if context.prefixes else None
