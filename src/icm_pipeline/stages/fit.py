"""Fit what the method learns before it steers, and keep what that cost."""

import time

from icm_pipeline.machine.devices import device_name
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.registry import method_named
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.steering import FitCost


def run(context: StageContext) -> None:
    settings, method = context.settings, method_named(context.settings.method.name)
    assert method.fit is not None
    backbone = context.models.load(settings.model, settings.compute)
    method.check_family(backbone)
    started = time.perf_counter()
    num_images = method.fit.run(backbone, MethodInputs(settings, context.parents), context.folder)
    seconds = round(time.perf_counter() - started, 3)
    FitCost(seconds, num_images, device_name(settings.compute.device)).write(context.folder)
