"""Fit what the method learns before it steers, and keep what that cost."""

import time

from icm_pipeline.images.activations import read_activations, read_recording
from icm_pipeline.images.table import read_table
from icm_pipeline.localization.pooled import Pooled
from icm_pipeline.machine.devices import device_name
from icm_pipeline.methods.base import ACTIVATIONS, Fit, MethodInputs, ProbeData
from icm_pipeline.methods.registry import method_named
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.steering import FitCost
from icm_pipeline.stages.learning_set import learning_set
from icm_pipeline.store.partial import seconds_before


def run(context: StageContext) -> None:
    settings, method = context.settings, method_named(context.settings.method.name)
    assert method.fit is not None
    backbone = context.models.load(settings.model, settings.compute)
    method.check_family(backbone.family, backbone.name)
    layers = Selection.read(context.parents["select"]).layers if "select" in method.fit.needs else []
    started = time.perf_counter()
    data = _probe_data(context, method.fit) if "label" in method.fit.needs else None
    inputs = MethodInputs(settings, context.parents, layers, probe_data=data)
    num_images = method.fit.run(backbone, inputs, context.folder)
    seconds = round(seconds_before(context.folder) + time.perf_counter() - started, 3)
    FitCost(seconds, num_images, device_name(settings.compute.device)).write(context.folder)


def _probe_data(context: StageContext, fit: Fit) -> ProbeData:
    source, labels, _ = learning_set(context)
    source = context.parents.get("maps", source)
    recording = read_recording(source) if {"maps", ACTIVATIONS} & set(fit.needs) else None
    prompts = [row.prompt for row in read_table(context.parents["generate"])]

    def read(layer: str) -> Pooled:
        assert recording is not None
        return read_activations(source, recording.files[layer])

    return ProbeData(labels, prompts, recording, read)
