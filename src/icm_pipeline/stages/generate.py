"""Make the probe dataset: ambiguous prompts, one seed per image, activations pooled in the same denoising pass."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.batches import Batch, fitting
from icm_pipeline.generation.jobs import Job, probe_jobs, recorded_steps
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.recording import Recorder
from icm_pipeline.localization.selection import LayerScore, select_layers
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import FLOAT_BYTES, Workload, bytes_kept, passes_per_run, width_sum
from icm_pipeline.stages.image_sets import planned, store


def run(context: StageContext) -> None:
    make_probe_dataset(context, "generate", pictures=True, record=context.settings.generate.record)


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    return probe_dataset_work(settings, outline, pictures=True, record=settings.generate.record)


def make_probe_dataset(context: StageContext, title: str, pictures: bool, record: bool, maps: bool = False) -> None:
    """Denoise every probe job; keep its picture, its pooled activations, or both; maps: record the bottleneck's."""
    images = planned(context, probe_jobs(context.settings))
    halved = context.settings.generate.store == "float16"
    steps = recorded_steps(context.settings) if record else []
    store(images, make_recorded(context, images.missing, steps, pictures, maps), title, halved)


def make_recorded(
    context: StageContext, missing: Iterable[list[Job]], steps: list[int], pictures: bool = True, maps: bool = False
) -> Iterator[Batch]:
    """Yield what is missing batch by batch, recorded at these steps; the model is loaded for the first.

    All layers are recorded, or with `maps` the bottleneck's whole maps.
    """
    settings = context.settings
    backbone = context.models.load(settings.model, settings.compute)
    check_layers(settings, backbone)
    backbone = backbone.with_bottleneck() if maps else backbone
    layers = [backbone.family.bottleneck] if maps else backbone.layers if steps else []

    def make(jobs: list[Job]) -> Batch:
        recorder = Recorder(steps, whole=maps)
        with hooked(backbone, layers, recorder, len(jobs)):
            latents = denoise(backbone, jobs)
        samples = decode(backbone, jobs, latents) if pictures else []
        return Batch(jobs, samples, recorder.recording() if steps else None)

    yield from fitting(missing, make, settings.compute.batch_size, settings.compute.grow_batch)


def check_layers(settings: Settings, backbone: Backbone) -> None:
    """Raise ValueError, before hours of generating, for layers that do not exist."""
    layers = settings.layers
    unscored = [LayerScore(site.layer, site.kind, 0.0) for site in backbone.sites]
    select_layers(unscored, layers.kind, layers.rule, layers.k, layers.names, layers.seed)


def probe_dataset_work(settings: Settings, outline: OutlineConfig | None, pictures: bool, record: bool) -> Workload:
    """Return what making the probe dataset takes."""
    steps = recorded_steps(settings) if record else []
    return recorded_work(settings, outline, len(probe_jobs(settings)), len(steps), pictures)


def recorded_work(
    settings: Settings, outline: OutlineConfig | None, num_images: int, num_steps: int, pictures: bool = True
) -> Workload:
    """Return what making images takes, and what recording so many steps of them keeps.

    On disk the files of all layers, beside those of all shards before these are removed; on the device the buffers of a
    batch, beside the same joined; in memory a shard's batches, the same joined, and the next shard's.
    """
    model = settings.model
    passes = num_images * passes_per_run(model.num_steps, model.scheduler)
    made = Workload(num_images, num_images if pictures else 0, passes)
    if not num_steps:
        return made
    if outline is None:
        return replace(made, values=None, stored=None, temporary=None, device_memory=None, memory=None)
    values, batch = num_steps * width_sum(outline), settings.compute.batch_size
    shard = -(-settings.generate.shard_size // batch) * batch
    size = FLOAT_BYTES * values  # of an image
    return replace(
        made, values=num_images * values, temporary=num_images * size,
        stored=bytes_kept(settings.generate.store, num_images, values),
        device_memory=2 * min(batch, num_images) * size, memory=3 * min(shard, num_images) * size,
    )  # fmt: skip
