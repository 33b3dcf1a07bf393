"""Record pooled activations of the probe dataset on their own; the numbers equal those recorded by `generate`."""

from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.stages.generate import make_probe_dataset, probe_dataset_work


def run(context: StageContext) -> None:
    make_probe_dataset(context, "extract", pictures=False, record=True)


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    return probe_dataset_work(settings, outline, pictures=False, record=True)
