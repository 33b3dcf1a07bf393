"""What is explored is found: by the configuration, an artifact, a run, a sweep, or a file of vectors."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.explore.material import Material
from icm_pipeline.explore.sources import opened
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.results.scores import Scores
from icm_pipeline.results.sweeps import write_result
from icm_pipeline.store.artifacts import ArtifactError
from icm_pipeline.tracking.base import NoTracker
from tests.explore.conftest import SMALL
from tests.helpers.settings import TINY

SettingsWith = Callable[..., Settings]
MADE = ("generate", "label", "probe", "select")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, settings_with: SettingsWith, models: ModelCache) -> Path:
    """The outputs of a run up to its selection."""
    folder = tmp_path_factory.mktemp("explored") / "outputs"
    pipeline = Pipeline(settings_with(*TINY, f"paths.outputs={folder}"), [], NoTracker(), models=models)
    for stage in MADE:
        pipeline.run(stage)
    return folder


def artifact_folder(outputs: Path, stage: str) -> Path:
    (folder,) = (outputs / "artifacts" / stage).glob("tiny-*")
    return folder


def job(folder: Path, settings: Settings, outputs: Path) -> None:
    """Leave what a job leaves in its folder."""
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(asdict(settings)), folder / ".hydra" / "config.yaml")
    pipeline = Pipeline(settings, [], NoTracker())
    write_result(folder, [], {} if settings.method.name == "prompt" else pipeline.folders())


def test_what_the_configuration_made_comes_before_what_is_shipped(outputs: Path, settings_with: SettingsWith) -> None:
    found = opened(settings_with(*TINY, f"paths.outputs={outputs}"), ["alpha=3"])
    assert [material.name for material in found] == ["gender", "age", "skin_tone"]
    own = found[0]
    (selection,) = (outputs / "artifacts" / "select").glob("*/selection.json")
    assert f'"{own.chosen[0]}"' in selection.read_text()
    assert own.scores is not None
    assert (own.alpha, own.window, own.scores.num_train) == (3.0, (1, 3), own.scores.num_train)
    assert (own.words, found[1].words) == (("alpha=3",), ("attribute=age", "alpha=3"))


@pytest.mark.parametrize("stage", ["probe", "select"])
def test_an_artifact_brings_the_settings_it_was_made_with(
    outputs: Path, settings_with: SettingsWith, stage: str
) -> None:
    folder = artifact_folder(outputs, stage)
    by_folder = opened(settings_with(f"explore.of={folder}", "stage=explore"))
    by_key = opened(settings_with(f"explore.of={folder.name.rpartition('-')[2][:8]}", f"paths.outputs={outputs}"))
    for (material,) in (by_folder, by_key):
        assert (material.settings.model.num_steps, material.settings.model.height) == (4, 32)
        assert material.settings.model.path == "embedded:tiny"
        assert len(material.chosen) == (2 if stage == "select" else 4)  # what it selected, or the settings' k


def test_an_artifact_before_probes_were_fitted_is_refused(outputs: Path, settings_with: SettingsWith) -> None:
    folder = artifact_folder(outputs, "generate")
    with pytest.raises(ValueError, match=rf"nothing to explore in {folder}: .* has no probes") as refused:
        opened(settings_with(f"explore.of={folder}"), [str(folder), "model=sd15"])
    assert "stage=select" not in str(refused.value)  # which would make other probes than those of what was given


def test_an_artifact_that_is_not_there_is_refused(outputs: Path, settings_with: SettingsWith) -> None:
    with pytest.raises(ArtifactError, match="No artifact"):
        opened(settings_with("explore.of=ffff", f"paths.outputs={outputs}"))


def test_an_artifact_without_folders_above_it_has_no_shelf(settings_with: SettingsWith) -> None:
    with pytest.raises(ArtifactError, match="There is no /nowhere"):
        opened(settings_with("explore.of=/nowhere"))


def test_a_run_is_explored_by_its_saved_configuration(
    outputs: Path, settings_with: SettingsWith, tmp_path: Path
) -> None:
    job(tmp_path / "run", settings_with(*TINY, f"paths.outputs={outputs}", "alpha=2.5"), outputs)
    (material,) = opened(settings_with(f"explore.of={tmp_path / 'run'}"))
    assert (material.alpha, material.settings.model.num_steps, len(material.chosen)) == (2.5, 4, 2)


def test_a_run_that_an_earlier_version_saved_is_explored(
    outputs: Path, settings_with: SettingsWith, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job(tmp_path / "run", settings_with(*TINY, f"paths.outputs={outputs}", "alpha=2.5"), outputs)
    path = tmp_path / "run" / ".hydra" / "config.yaml"
    saved = OmegaConf.load(path)
    del saved.audit.sizes.half, saved.plan, saved.probe.solver, saved.method.tries
    saved.probe.forgotten = 1
    OmegaConf.save(saved, path)
    (material,) = opened(settings_with(f"explore.of={tmp_path / 'run'}"))
    assert (material.alpha, material.settings.model.num_steps, len(material.chosen)) == (2.5, 4, 2)
    assert (material.settings.probe.solver, material.settings.method.tries) == ("batched", 1)
    assert list(material.settings.attribute.options) == ["woman", "man"]
    assert "left out: probe.forgotten" in caplog.text


def test_a_saved_configuration_that_cannot_be_is_named(
    outputs: Path, settings_with: SettingsWith, tmp_path: Path
) -> None:
    job(tmp_path / "run", settings_with(*TINY, f"paths.outputs={outputs}"), outputs)
    path = tmp_path / "run" / ".hydra" / "config.yaml"
    saved = OmegaConf.load(path)
    saved.layers.k = -1
    OmegaConf.save(saved, path)
    with pytest.raises(ConfigError, match=f"the run in {tmp_path / 'run'} cannot be read: layers.k"):
        opened(settings_with(f"explore.of={tmp_path / 'run'}"))


def test_methods_of_a_sweep_are_rivals_of_its_probes(
    outputs: Path, settings_with: SettingsWith, tmp_path: Path
) -> None:
    here = f"paths.outputs={outputs}"
    job(tmp_path / "0", settings_with(*TINY, here, "method.name=prompt", "method.params.text=option"), outputs)
    job(tmp_path / "1", settings_with(*TINY, here), outputs)
    (material,) = opened(settings_with(f"explore.of={tmp_path}"))
    assert list(material.rivals) == ["prompt"]
    assert material.rivals["prompt"].settings.method.params == {"text": "option"}


def test_a_folder_that_no_run_left_is_refused(settings_with: SettingsWith, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no result\.json"):
        opened(settings_with(f"explore.of={tmp_path}"))


def test_a_file_of_vectors_is_explored_with_the_layers_it_has(
    outputs: Path, settings_with: SettingsWith, tmp_path: Path, gender: Material
) -> None:
    gender.vectors.of_layers(gender.chosen).save(tmp_path / "mine.safetensors")
    (material,) = opened(settings_with(*SMALL, f"explore.vectors={tmp_path / 'mine.safetensors'}"))
    assert (material.chosen, material.options) == (gender.chosen, ("woman", "man"))
    assert (material.scores, material.reading, material.judge_problem) == (None, None, "")
    assert material.alpha == 7.0


def test_vectors_for_options_that_no_attribute_has_are_explored_without_a_judge(
    settings_with: SettingsWith, tmp_path: Path, skin_tone: Material
) -> None:
    replace(skin_tone.vectors, options=("a", "b", "c", "d"), attribute="mine").save(tmp_path / "mine.safetensors")
    (material,) = opened(settings_with(*SMALL, f"explore.vectors={tmp_path / 'mine.safetensors'}"))
    assert material.options == ("a", "b", "c", "d")
    assert "cannot judge 'mine'" in material.judge_problem


def test_a_model_without_probes_has_nothing_to_explore(settings_with: SettingsWith, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing to explore yet.* with icm stage=select model=sd15, or give"):
        opened(settings_with(f"paths.outputs={tmp_path}"), ["model=sd15"])


def test_shipped_scores_are_of_the_shipped_layers(shipped: list[Material]) -> None:
    assert [material.name for material in shipped] == ["gender", "age", "skin_tone"]
    for material in shipped:
        assert isinstance(material.scores, Scores)
        assert set(material.scores.layers) == set(material.vectors.layers) > set(material.chosen)
        assert material.reading is not None
        assert material.reading.layer in material.chosen


@pytest.mark.parametrize(("model", "alpha", "last_step"), [("sdxl", 4.6, 19), ("sana", 4.5, 14), ("flux", 2.2, 19)])
def test_the_other_embedded_models_are_explored_with_their_own_vectors(
    settings_with: SettingsWith, tmp_path: Path, model: str, alpha: float, last_step: int
) -> None:
    words = (f"model.path=embedded:tiny_{model}", f"model.name=tiny_{model}", f"paths.outputs={tmp_path}")
    (material,) = opened(settings_with(*words, "judge.path=embedded:tiny-classifier"))
    assert (material.name, material.options, material.judge_problem) == ("gender", ("woman", "man"), "")
    assert (material.vectors.model, material.alpha, material.window) == (f"tiny_{model}", alpha, (0, last_step))
    assert material.reading is not None
    assert material.reading.layer in material.chosen
    for directions in material.vectors.directions.values():
        woman, man = directions.unbind(1)
        assert torch.equal(woman, -man)
        assert torch.allclose(man.norm(dim=-1), torch.ones(20), atol=1e-3)
