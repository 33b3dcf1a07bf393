"""What the labeler sees in evaluation images, behind the evaluation's cache of answers."""

from collections.abc import Sequence

from icm_pipeline.arrays import Floats
from icm_pipeline.evaluation.judging import Judging
from icm_pipeline.evaluation.row_cache import RowCache
from icm_pipeline.images.table import ImageRow
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.store.caches import judged_folder


def judged(context: StageContext, rows: Sequence[ImageRow]) -> Floats:
    """Return the labeler's probability of each option [n, options]."""
    settings, attribute = context.settings, context.settings.attribute
    cache = RowCache(judged_folder(context.folder), context.folder)
    asked = {attribute.name: attribute.options}
    return Judging(settings, cache).label(settings.labeler, "labeler", rows, asked)[attribute.name]
