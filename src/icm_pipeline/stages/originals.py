"""Make the unsteered evaluation images: the twins of every steered set with the same model, prompts and seeds."""

from icm_pipeline.image_sets import Batch, make_image_set
from icm_pipeline.pipeline import StageContext
from icm_pipeline.prompts import Job
from icm_pipeline.sampling import decode, denoise
from icm_pipeline.stages.models import backbone_of, evaluation_jobs


def run(context: StageContext) -> None:
    settings = context.settings
    backbone = backbone_of(settings)

    def make_batch(jobs: list[Job]) -> Batch:
        return Batch(decode(backbone, jobs, denoise(backbone, jobs)), {})

    make_image_set(
        context.folder,
        evaluation_jobs(settings),
        make_batch,
        settings.model.batch_size,
        settings.generate.shard_size,
        title="originals",
    )
