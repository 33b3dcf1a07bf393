"""What the stages that make images share."""

from collections.abc import Iterable, Sequence

from icm_pipeline.generation.batches import Batch
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.prefixes import PrefixStore
from icm_pipeline.images.making import ImageSet, plan_images, store_images
from icm_pipeline.images.sheet import draw_sheet
from icm_pipeline.images.table import IMAGES, SAMPLES
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.stage import StageContext


def planned(
    context: StageContext, jobs: list[Job], options: Sequence[str] = (), batch_size: int | None = None
) -> ImageSet:
    """Return the images that a stage makes, or its share of them, with those that are there already."""
    settings = context.settings
    size = batch_size or settings.model.batch_size
    return plan_images(context.folder, jobs, size, settings.generate.shard_size, options, context.share)


def store(images: ImageSet, made: Iterable[Batch], title: str) -> bool:
    """Store batches as they are made, with a contact sheet of all; return whether the set is complete."""
    complete = store_images(images, made, title)
    if complete and (images.folder / IMAGES).exists():
        draw_sheet(images.folder / SAMPLES, images.folder / IMAGES)
    return complete


def prefix_store(context: StageContext) -> PrefixStore | None:
    """Return where the steps before the first steered one are kept for all runs with these images, if they are."""
    folder = Keys(context.settings).prefix_folder()
    return PrefixStore(folder) if folder else None
