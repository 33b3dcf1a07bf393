"""The withhold stage: the layers that contribute most see the prompt without the option's name, and images tell."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.backbones.text_attention import cross_attentions
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation import judging
from icm_pipeline.generation.jobs import Job, tuning_jobs
from icm_pipeline.generation.sampling import decode, denoise
from icm_pipeline.images.pictures import read_picture
from icm_pipeline.images.table import read_made
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.report.localizers_page import withheld_table
from icm_pipeline.results.effects import UNSTEERED, arm_of
from icm_pipeline.results.localizers import Contributions, LayerContribution, Withheld
from icm_pipeline.stages import contribution, withhold
from tests.helpers.models import NUM_STEPS
from tests.helpers.results import as_artifact
from tests.stages.test_causal import BrightnessLabeler

Compose = Callable[..., Settings]


@pytest.fixture
def settings(settings_with: Compose, random_pipeline_folder: Path) -> Settings:
    return settings_with(
        f"model.path={random_pipeline_folder}", f"model.num_steps={NUM_STEPS}", "model.guidance_scale=3",
        "model.scheduler=null", "localizers.images=4", "localizers.windows=[1]", "labeler.batch_size=1",
        "attribute.trial_subjects=[chef,judge]", "compute.batch_size=4", "attribute.probe_templates=['a {}','the {}']",
    )  # fmt: skip


@pytest.fixture
def folder(settings: Settings, models: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the stage, the second layer contributing most, and return its folder; CLIP is the mean colour."""
    monkeypatch.setattr(judging, "load_labeler", lambda config, setting: BrightnessLabeler())

    def embed(self: Any, rows: Any) -> np.ndarray:
        return np.stack([np.asarray(read_picture(row.path)).astype(float).mean((0, 1)) for row in rows])

    monkeypatch.setattr(judging.Judging, "embed", embed)
    layers = cross_attentions(models.load(settings.model, settings.compute))
    found = {layer: LayerContribution(float(place == 1), (0.0, 1.0), []) for place, layer in enumerate(layers)}
    (tmp_path / "contribution").mkdir()
    Contributions(4, [], found).write(tmp_path / "contribution")
    made = tmp_path / "artifacts" / "withhold" / "made"
    (made / "shards").mkdir(parents=True)
    parents = {"contribution": as_artifact(tmp_path / "contribution")}
    withhold.run(StageContext(settings, parents, made, models=models))
    return made


def test_too_many_layers_are_refused_before_contributions_are_made(
    settings: Settings, models: ModelCache, tmp_path: Path
) -> None:
    settings.localizers.intervention, settings.localizers.windows = True, [99]
    with pytest.raises(ValueError, match=r"localizers\.windows=\[99\]: 99 of \d+ cross-attention layers leave none"):
        contribution.run(StageContext(settings, {}, tmp_path, models=models))
    assert not list(tmp_path.iterdir())


def test_where_no_layer_is_told_the_name_images_are_those_of_the_prompt_without_it(
    folder: Path, settings: Settings, models: ModelCache
) -> None:
    backbone = models.load(settings.model, settings.compute)
    jobs = [Job(job.image_id, job.prompt, job.prompt_index, job.seed) for job in tuning_jobs(settings, 4)]
    neutral = [np.asarray(each.image).astype(int) for each in decode(backbone, jobs, denoise(backbone, jobs))]
    own = {row.image_id: np.asarray(read_picture(row.path)).astype(int) for row in read_made(folder)}
    for job, wanted in zip(jobs, neutral, strict=True):
        assert np.abs(own[f"{withhold.EVERYWHERE}-{job.image_id}"] - wanted).max() <= 1
        assert np.abs(own[f"{UNSTEERED}-{job.image_id}"] - wanted).max() > 1


def test_each_set_has_the_change_of_the_named_option_against_the_prompts_own_images(
    folder: Path, settings: Settings, models: ModelCache
) -> None:
    found, layers = Withheld.read(as_artifact(folder)), cross_attentions(models.load(settings.model, settings.compute))
    assert {name: each.layers for name, each in found.sets.items()} == {
        "all": layers, "most 1": [layers[1]], "least 1": [layers[-1]]
    }  # fmt: skip
    rows = {row.image_id: row for row in read_made(folder)}
    assert {arm_of(name)[0] for name in rows} == {UNSTEERED, "all", "most_1", "least_1"}
    assert all(f"a {'fe' * (row.option == 'woman')}male " in row.prompt.replace("the", "a") for row in rows.values())
    seen = {name: float(np.asarray(read_picture(row.path)).astype(float).mean() / 255) for name, row in rows.items()}
    of_option = {name: seen[name] if row.option == "woman" else 1 - seen[name] for name, row in rows.items()}
    twins = [name.partition("-")[2] for name in rows if arm_of(name)[0] == UNSTEERED]
    for name, each in found.sets.items():
        arm = name.replace(" ", "_")
        changes = [of_option[f"{arm}-{twin}"] - of_option[f"{UNSTEERED}-{twin}"] for twin in twins]
        assert each.effect == pytest.approx(np.mean(changes)) != 0
        assert found.share is not None and each.share == pytest.approx(found.share + each.effect)
    assert [row[0] for row in withheld_table(found)] == ["not told", "none", "all", "most 1", "least 1"]


def test_the_layers_that_contribute_most_and_least_are_taken_in_the_models_order() -> None:
    given = {"a": 3.0, "b": 1.0, "c": 4.0, "d": 2.0}
    assert withhold.sets_of(list(given), given, [1, 2]) == {
        "all": ["a", "b", "c", "d"], "most_1": ["c"], "least_1": ["b"], "most_2": ["a", "c"], "least_2": ["b", "d"],
    }  # fmt: skip
    with pytest.raises(ValueError, match="4 of 4 cross-attention layers leave none to hold them against"):
        withhold.sets_of(list(given), given, [1, 4])


def test_joint_attention_is_left_out_with_the_reason_and_no_image_is_made(settings: Settings, tmp_path: Path) -> None:
    one = SimpleNamespace(family=FLUX, name="flux_dev")
    cache: Any = SimpleNamespace(load=lambda model, compute: one)
    withhold.run(StageContext(settings, {}, tmp_path, models=cache))
    found = Withheld.read(as_artifact(tmp_path))
    assert "one text stream that runs through all of its blocks" in found.why_not
    assert (found.num_images, found.share, found.sets) == (0, None, {})
    assert [path.name for path in tmp_path.iterdir()] == [Withheld.FILE]
    assert len(withheld_table(found)) == 1
