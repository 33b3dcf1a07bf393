"""Measure what the words that name an option put into the image, by layer and step, while images are made as ever."""

import logging
from collections.abc import Iterator

from scipy import stats

from icm_pipeline.arrays import Floats
from icm_pipeline.backbones.text_attention import cross_attentions, no_injection, text_attentions, tokens_of
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job, recorded_steps
from icm_pipeline.generation.named import named_jobs
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.contributions import contributing
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.images.activations import read_recorded
from icm_pipeline.images.making import ImageSet
from icm_pipeline.metrics.resampling import Estimate
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload, passes_per_run
from icm_pipeline.results.localizers import Contributions, LayerContribution
from icm_pipeline.stages.image_sets import planned, store
from icm_pipeline.stages.withhold import check_windows
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import Tracker

log = logging.getLogger(__name__)


def run(context: StageContext) -> None:
    if context.settings.localizers.intervention:
        _check_windows(context)
    jobs, options = named_jobs(context.settings, context.settings.localizers.images)
    images = planned(context, jobs, options)
    if not store(images, _made(context, images, options), "contribution"):
        return
    recorded, values = read_recorded(context.folder)
    layers = {layer: contribution_in(each[..., 0].numpy()) for layer, each in values.items()}
    Contributions(len(jobs), recorded.steps, layers).write(context.folder)
    best = sorted(layers, key=lambda layer: -layers[layer].mean)[:3]
    log.info("contribution: most by %s", ", ".join(f"{layer} {layers[layer].mean:.3f}" for layer in best))


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    num, model = settings.localizers.images, settings.model
    return Workload(num, 0, num * passes_per_run(model.num_steps, model.scheduler))


def show(tracker: Tracker, artifact: Artifact) -> None:
    rows = [[layer, row.mean, *row.interval_95] for layer, row in Contributions.read(artifact).layers.items()]
    tracker.table("contribution/layers", ["layer", "contribution", "low", "high"], rows)


def contribution_in(norms: Floats) -> LayerContribution:
    """Return the mean of a layer's norms [n, T], with the t interval of its images."""
    of_images = norms.mean(1)
    error = float(stats.sem(of_images)) if len(of_images) > 1 else 0.0
    estimate = Estimate(float(of_images.mean()), error, max(2, len(of_images)))
    return LayerContribution(estimate.value, estimate.interval_95, [float(step) for step in norms.mean(0)])


def _check_windows(context: StageContext) -> None:
    """Raise ValueError for a number of layers that stage=withhold could not take, before anything is made for it."""
    backbone = context.models.load(context.settings.model, context.settings.compute)
    if not no_injection(backbone.family):
        check_windows(len(cross_attentions(backbone)), context.settings.localizers.windows)


def _made(context: StageContext, images: ImageSet, options: list[str]) -> Iterator[Batch]:
    """Yield the recorded contributions of the missing images, batch by batch; no picture is decoded."""
    settings, option_of = context.settings, dict(zip(images.ids, options, strict=True))
    backbone = context.models.load(settings.model, settings.compute)
    attentions = text_attentions(backbone)

    def make(jobs: list[Job]) -> Batch:
        naming = [settings.attribute.named[option_of[job.image_id]] for job in jobs]
        tokens = [tokens_of(backbone, job.prompt, words) for job, words in zip(jobs, naming, strict=True)]
        recorder = Recorder(recorded_steps(settings))
        with (
            hooked(backbone, [], None, len(jobs)) as clock,
            contributing(backbone, attentions, clock, recorder, tokens),
        ):
            denoise(backbone, jobs)
        return Batch(jobs, [], recorder.recording())

    yield from fitting(images.missing, make, settings.compute.batch_size, settings.compute.grow_batch)
