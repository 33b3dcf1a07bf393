"""Record pooled activations of the probe dataset on their own; the numbers equal those recorded by `generate`."""

from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.stages.generate import make_probe_dataset


def run(context: StageContext) -> None:
    make_probe_dataset(context, "extract", pictures=False, record=True)
