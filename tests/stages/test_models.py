"""From settings to jobs and steps, and what is refused before hours of generating."""

from collections.abc import Callable

import pytest

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.paths import ZOO
from icm_pipeline.config import Settings
from icm_pipeline.metrics import realism
from icm_pipeline.stages.models import check_device, evaluation_jobs, probe_jobs, recorded_steps, refuse_early

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


def test_probe_and_evaluation_images_share_no_seed(settings_with: Compose) -> None:
    settings = settings_with()
    probe, evaluation = probe_jobs(settings), evaluation_jobs(settings)
    assert len({job.prompt for job in probe}) >= 40
    assert not {job.seed for job in probe} & {job.seed for job in evaluation}
    assert len({job.seed for job in probe}) == len(probe)


@pytest.mark.parametrize("word", ["layers.k=99", "layers.rule=named"])
def test_layers_that_do_not_exist_are_refused_early(settings_with: Compose, backbone: Backbone, word: str) -> None:
    with pytest.raises(ValueError, match=r"layers\."):
        refuse_early(settings_with(word, "labeler.kind=clip", "judge.kind=clip"), backbone)


def test_an_attribute_that_the_embedded_judge_cannot_tell_is_refused_early(
    settings_with: Compose, backbone: Backbone
) -> None:
    settings = settings_with("judge.kind=tiny", f"judge.path={ZOO / 'tiny-classifier'}", "layers.k=1")
    refuse_early(settings, backbone)
    settings.attribute.name = "beard"
    with pytest.raises(ValueError, match="beard"):
        refuse_early(settings, backbone)


def test_an_inception_checkpoint_that_is_not_there_is_refused_early(settings_with: Compose, backbone: Backbone) -> None:
    settings = settings_with(
        "labeler.kind=clip", "judge.kind=clip", "layers.k=1", "evaluate.inception=/nowhere/net.pth"
    )
    with pytest.raises(ValueError, match=r"evaluate\.inception=/nowhere/net\.pth does not exist"):
        refuse_early(settings, backbone)


def test_a_reference_without_the_library_for_it_is_refused_early(
    settings_with: Compose, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(realism, "find_spec", lambda name: None)
    settings = settings_with("labeler.kind=clip", "judge.kind=clip", "layers.k=1", "evaluate.reference=/pictures")
    with pytest.raises(ModuleNotFoundError, match=r"icm_pipeline\[fid\]"):
        refuse_early(settings, backbone)


def test_a_device_that_is_not_there_is_refused_by_its_setting() -> None:
    check_device("cpu", "model.device")
    with pytest.raises(ValueError, match=r"model\.device=nonsense"):
        check_device("nonsense", "model.device")
