"""Make the unsteered evaluation images: the twins of every steered set with the same model, prompts and seeds."""

from icm_pipeline.backbones.loaded import loading
from icm_pipeline.generation.batches import Batch
from icm_pipeline.generation.jobs import Job, evaluation_jobs
from icm_pipeline.generation.prefixes import shared_prefix
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.stages.image_sets import make_images, prefix_store


def run(context: StageContext) -> None:
    settings, prefixes = context.settings, prefix_store(context)
    first_step, loaded = settings.method.first_step, loading(settings.model)

    def make_batch(jobs: list[Job]) -> Batch:
        backbone, ids = loaded(), [job.image_id for job in jobs]
        with hooked(backbone, [], None, len(jobs)) as clock, shared_prefix(backbone, clock, prefixes, ids, first_step):
            latents = denoise(backbone, jobs)
        return Batch(len(jobs), decode(backbone, jobs, latents))

    make_images(context, "originals", evaluation_jobs(settings), make_batch)
