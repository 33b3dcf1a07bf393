"""Make the unsteered evaluation images: the twins of every steered set with the same model, prompts and seeds."""

from collections.abc import Iterable, Iterator

from icm_pipeline.config.schema import OutlineConfig, Settings
from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job, evaluation_jobs
from icm_pipeline.generation.prefixes import shared_prefix
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.stages.image_sets import evaluation_set_work, planned, prefix_store, store


def run(context: StageContext) -> None:
    images = planned(context, evaluation_jobs(context.settings))
    store(images, _made(context, images.missing), "originals")


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    return evaluation_set_work(settings, outline)


def _made(context: StageContext, missing: Iterable[list[Job]]) -> Iterator[Batch]:
    """Yield the missing images batch by batch; the model is loaded for the first."""
    settings, prefixes = context.settings, prefix_store(context)
    backbone, first_step = context.models.load(settings.model, settings.compute), settings.method.first_step

    def make(jobs: list[Job]) -> Batch:
        ids = [job.image_id for job in jobs]
        with hooked(backbone, [], None, len(jobs)) as clock, shared_prefix(backbone, clock, prefixes, ids, first_step):
            latents = denoise(backbone, jobs)
        return Batch(jobs, decode(backbone, jobs, latents))

    yield from fitting(missing, make, settings.compute.batch_size, settings.compute.grow_batch)
