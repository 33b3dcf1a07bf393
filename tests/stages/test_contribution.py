"""The contribution stage: what its files say is what the hook measured of prompts that name an option."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.backbones.text_attention import text_attentions, tokens_of
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.named import named_jobs
from icm_pipeline.images.activations import read_recorded
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.localizers import Contributions
from icm_pipeline.stages import contribution
from tests.helpers.models import NUM_STEPS
from tests.helpers.results import as_artifact

Compose = Callable[..., Settings]


@pytest.fixture
def settings(settings_with: Compose, random_pipeline_folder: Path) -> Settings:
    return settings_with(
        f"model.path={random_pipeline_folder}", f"model.num_steps={NUM_STEPS}", "model.guidance_scale=3",
        "model.scheduler=null", "localizers.images=4", "compute.batch_size=2", "generate.shard_size=2",
        "attribute.probe_templates=['a {}']", "attribute.probe_subjects=[cat,dog]", "attribute.trial_subjects=[]",
    )  # fmt: skip


def made(settings: Settings, models: ModelCache, folder: Path) -> Contributions:
    folder.mkdir(exist_ok=True)
    contribution.run(StageContext(settings, {}, folder, models=models))
    return Contributions.read(as_artifact(folder))


def test_a_layers_contribution_is_the_mean_over_images_and_steps_with_the_interval_of_images(
    settings: Settings, models: ModelCache, tmp_path: Path
) -> None:
    found = made(settings, models, tmp_path / "made")
    backbone = models.load(settings.model, settings.compute)
    assert list(found.layers) == [each.layer for each in text_attentions(backbone)]
    _, recorded = read_recorded(tmp_path / "made")
    for layer, row in found.layers.items():
        values = recorded[layer][..., 0]
        assert values.shape == (4, NUM_STEPS)
        assert row.mean == pytest.approx(float(values.mean()))
        assert row.by_step == pytest.approx(values.mean(0).tolist())
        half = 3.1824 * float(values.mean(1).std()) / 4**0.5
        assert row.interval_95 == pytest.approx((row.mean - half, row.mean + half), rel=1e-3)
    assert not (tmp_path / "made" / "images").exists()


def test_each_image_is_measured_at_the_words_of_its_own_option(settings: Settings, models: ModelCache) -> None:
    backbone = models.load(settings.model, settings.compute)
    jobs, options = named_jobs(settings, 4)
    for job, option in zip(jobs, options, strict=True):
        word = "female" if option == "woman" else "male"
        assert job.prompt.startswith(f"a {word} ")
        found = tokens_of(backbone, job.prompt, settings.attribute.named[option])
        assert found == list(range(2, 2 + len(word)))  # a token a letter


def test_an_interrupted_stage_comes_to_the_same_figures(settings: Settings, models: ModelCache, tmp_path: Path) -> None:
    whole = made(settings, models, tmp_path / "made")
    settings.generate.shard_size = 2
    first = sorted((tmp_path / "made" / "shards").glob("*.json"))[0]
    first.unlink()
    assert made(settings, models, tmp_path / "made") == whole


def test_one_image_has_a_figure_without_an_interval() -> None:
    row = contribution.contribution_in(np.array([[1.0, 3.0]]))
    assert (row.mean, row.interval_95, row.by_step) == (2.0, (2.0, 2.0), [1.0, 3.0])
    assert torch.isfinite(torch.tensor(row.interval_95)).all()
