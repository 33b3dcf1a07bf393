"""Prompts of pairs differ in what they name and in nothing else; a fit goes on where it was interrupted."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.text_attention import cross_attentions
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.methods import prompt_pairs
from icm_pipeline.methods.prompt_pairs import prompt_jobs, recorded
from icm_pipeline.methods.wordings import option_prompts
from icm_pipeline.progress import working

NAMED = {"woman": "female {}", "man": "male {}"}
Given = Callable[..., Settings]


@pytest.fixture
def settings(settings_with: Given) -> Settings:
    found = settings_with("model.num_steps=4", "compute.batch_size=2")
    attribute = found.attribute
    attribute.named, attribute.probe_templates = NAMED, ["a face of a {}", "a photo of a {}"]
    attribute.probe_subjects, attribute.trial_subjects = ["person"], ["engineer", "nurse"]
    attribute.evaluation_prompts = ["a picture of a nurse"]
    return found


def test_the_prompts_of_a_set_differ_in_the_option_alone_and_share_a_seed(settings: Settings) -> None:
    made = prompt_jobs(settings, 3)
    assert made.labels.tolist() == [-1, 0, 1] * 3
    assert len({job.image_id for job in made.jobs}) == len(made.jobs)
    for start in range(0, 9, 3):
        none, woman, man = made.jobs[start : start + 3]
        assert woman.prompt.replace("female", "male") == man.prompt
        assert man.prompt.replace("a male ", "an " if "engineer" in man.prompt else "a ") == none.prompt
        assert len({none.seed, woman.seed, man.seed}) == 1
    assert len({job.seed for job in made.jobs}) == 3


def test_no_subject_that_is_evaluated_is_learnt_from(settings: Settings) -> None:
    prompts = [job.prompt for job in prompt_jobs(settings, 40).jobs]
    assert len(prompts) == 3 * 4  # two subjects of three, two templates
    assert not any("nurse" in prompt for prompt in prompts)
    settings.attribute.evaluation_prompts = ["a dog"]
    assert any("nurse" in job.prompt for job in prompt_jobs(settings, 40).jobs)


def test_options_that_no_prompt_can_name_and_subjects_that_are_all_evaluated_are_refused(settings: Settings) -> None:
    assert option_prompts(settings) == ["a female person", "a male person"]
    settings.attribute.evaluation_prompts = ["a person", "an engineer", "a nurse"]
    with pytest.raises(ValueError, match=r"Every subject of attribute.probe_subjects and trial_subjects is evaluated"):
        prompt_jobs(settings, 3)
    settings.attribute.named = {"woman": "female {}"}
    for ask in (lambda: prompt_jobs(settings, 3), lambda: option_prompts(settings)):
        with pytest.raises(ValueError, match="does not say how a prompt names man"):
            ask()


def test_recording_goes_on_behind_the_batches_that_are_done(
    backbone: Backbone, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = prompt_jobs(settings, 2).jobs
    made, fails_at = list[int](), [2]

    def counting(backbone: Backbone, batch: list[Job]) -> Tensor:
        if len(made) == fails_at[0]:
            raise RuntimeError("killed")
        made.append(len(batch))
        return denoise(backbone, batch)

    monkeypatch.setattr(prompt_pairs, "denoise", counting)

    def record(folder: Path) -> dict[str, Tensor]:
        with working("fit", len(jobs), "image") as work:
            found, levels = recorded(backbone, cross_attentions(backbone), jobs, settings, folder, work)
        assert len(levels) == 4
        return found

    with pytest.raises(RuntimeError, match="killed"):
        record(tmp_path / "interrupted")
    assert made == [2, 2]
    fails_at[0] = -1
    found = record(tmp_path / "interrupted")
    assert made == [2, 2, 2]
    whole = record(tmp_path / "at-once")
    assert list(found) == cross_attentions(backbone)
    for layer, rows in whole.items():
        assert rows.shape[:2] == (6, 4)
        assert torch.equal(found[layer], rows)
        assert not torch.equal(rows[1], rows[2])


@pytest.mark.parametrize("then", [1, 4])
def test_recording_goes_on_with_another_batch_size_to_the_same_result(
    backbone: Backbone, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: int
) -> None:
    jobs, made = prompt_jobs(settings, 2).jobs, list[int]()

    def record(folder: str) -> dict[str, Tensor]:
        with working("fit", len(jobs), "image") as work:
            return recorded(backbone, cross_attentions(backbone), jobs, settings, tmp_path / folder, work)[0]

    def counting(backbone: Backbone, batch: list[Job]) -> Tensor:
        if made == [2]:
            raise KeyboardInterrupt
        made.append(len(batch))
        return denoise(backbone, batch)

    whole = record("at-once")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prompt_pairs, "denoise", counting)
        record("interrupted")
    settings.compute.batch_size = then
    for _ in range(2):  # the second time all of it is there
        found = record("interrupted")
        assert {layer: rows.shape for layer, rows in found.items()} == {
            layer: rows.shape for layer, rows in whole.items()
        }
        for layer, rows in whole.items():
            torch.testing.assert_close(found[layer], rows, atol=1e-4, rtol=1e-4)
