"""Record the middle block's whole maps on the probe dataset, for methods that work there."""

from dataclasses import replace

from icm_pipeline.config.models import OutlineConfig
from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.workload import Workload
from icm_pipeline.stages.generate import make_probe_dataset, probe_dataset_work


def run(context: StageContext) -> None:
    make_probe_dataset(context, "maps", pictures=False, record=True, maps=True)


def work(settings: Settings, outline: OutlineConfig | None) -> Workload:
    """What is kept is not known: an outline does not tell the map's size."""
    made = probe_dataset_work(settings, outline, pictures=False, record=False)
    return replace(made, values=None, stored=None, temporary=None, device_memory=None, memory=None)
