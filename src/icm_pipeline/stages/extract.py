"""Record pooled activations of the probe dataset on their own; the numbers equal those recorded by `generate`."""

from icm_pipeline.config.schema import OutlineConfig, Settings
from icm_pipeline.generation.jobs import probe_jobs
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload, passes_per_run
from icm_pipeline.stages.generate import make_probe_dataset, with_recording


def run(context: StageContext) -> None:
    make_probe_dataset(context, "extract", pictures=False, record=True)


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    num_images, model = len(probe_jobs(settings)), settings.model
    made = Workload(num_images, passes=num_images * passes_per_run(model.num_steps, model.scheduler))
    return with_recording(settings, made, outline)
