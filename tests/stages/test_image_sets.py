"""From settings to jobs and steps, and what is refused before hours of generating."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import evaluation_jobs, probe_jobs, recorded_steps
from icm_pipeline.machine.devices import check_device
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.table import STAGES
from icm_pipeline.stages import probe
from icm_pipeline.stages.generate import check_layers

Compose = Callable[..., Settings]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], list(range(20))),
        (["timesteps.start=0.5"], list(range(10, 20))),
        (["timesteps.count=5"], [0, 4, 8, 12, 16]),
        (["timesteps.count=5", "model.num_steps=50"], [0, 10, 20, 30, 40]),
        (["timesteps.count=99"], list(range(20))),
        (["timesteps.start=0.99"], [19]),
    ],
)
def test_recorded_steps_are_spread_evenly_from_their_start(
    settings_with: Compose, words: list[str], expected: list[int]
) -> None:
    assert recorded_steps(settings_with(*words)) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU")
def test_probes_on_a_device_that_is_not_there_are_refused_before_anything_is_read(settings_with: Compose) -> None:
    settings = settings_with("compute.device=cuda", "probe.device=cuda")
    with pytest.raises(ValueError, match=r"probe\.device=cuda cannot be used here .* Set probe\.device=cpu"):
        probe.run(StageContext(settings, {}, Path()))


def test_the_device_of_probes_may_be_another_than_the_models(settings_with: Compose) -> None:
    assert STAGES["probe"].device(settings_with("compute.device=cuda")) == "cuda"
    assert STAGES["probe"].device(settings_with("compute.device=cuda", "probe.device=cpu")) == "cpu"


def test_probe_and_evaluation_images_share_no_seed(settings_with: Compose) -> None:
    settings = settings_with()
    probe, evaluation = probe_jobs(settings), evaluation_jobs(settings)
    assert len({job.prompt for job in probe}) >= 40
    assert not {job.seed for job in probe} & {job.seed for job in evaluation}
    assert len({job.seed for job in probe}) == len(probe)


@pytest.mark.parametrize("word", ["layers.k=99", "layers.rule=named"])
def test_layers_that_do_not_exist_are_refused_early(settings_with: Compose, backbone: Backbone, word: str) -> None:
    check_layers(settings_with("layers.k=1"), backbone)
    with pytest.raises(ValueError, match=r"layers\."):
        check_layers(settings_with(word), backbone)


def test_a_device_that_is_not_there_is_refused_by_its_setting() -> None:
    check_device("cpu", "compute.device")
    with pytest.raises(ValueError, match=r"compute\.device=nonsense"):
        check_device("nonsense", "compute.device")
