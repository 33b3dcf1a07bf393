"""Fit what the method learns before it steers, and keep what that cost."""

import time

from icm_pipeline.backbones.loaded import load_model
from icm_pipeline.machine.devices import device_name
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.registry import method_named
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.store.files import write_json

COST = "cost.json"


def run(context: StageContext) -> None:
    settings, method = context.settings, method_named(context.settings.method.name)
    assert method.fit is not None
    backbone = load_model(settings.model)
    method.check_family(backbone)
    started = time.perf_counter()
    num_images = method.fit.run(backbone, MethodInputs(settings, context.parents), context.folder)
    seconds = time.perf_counter() - started
    cost = {"seconds": round(seconds, 3), "images": num_images, "device": device_name(settings.model.device)}
    write_json(context.folder / COST, cost)
