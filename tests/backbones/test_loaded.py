"""The model that was loaded last: one for all who are given the same cache, none in common for others."""

import gc
import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from icm_pipeline.backbones import registry
from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.models import ComputeConfig, ModelConfig
from icm_pipeline.config.schema import Settings

Compose = Callable[..., Settings]


def load(models: ModelCache, settings: Settings) -> Backbone:
    return models.load(settings.model, settings.compute)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give a list of the models that are loaded from disk."""
    names: list[str] = []
    load_backbone = registry.load_backbone

    def loading(model: ModelConfig, compute: ComputeConfig) -> Backbone:
        names.append(model.name)
        return load_backbone(model, compute)

    monkeypatch.setattr(registry, "load_backbone", loading)
    return names


def test_a_model_is_loaded_once_for_stages_and_jobs_that_want_the_same(
    settings_with: Compose, random_pipeline_folder: Path, loads: list[str]
) -> None:
    path, models = f"model.path={random_pipeline_folder}", ModelCache()
    first = load(models, settings_with(path))
    assert load(models, settings_with(path, "alpha=3", "compute.batch_size=2")) is first
    assert len(loads) == 1
    assert load(models, settings_with(path, "model.num_steps=3")) is not first
    assert len(loads) == 2


def test_runs_that_are_given_no_common_cache_share_no_model(
    settings_with: Compose, random_pipeline_folder: Path, loads: list[str]
) -> None:
    settings = settings_with(f"model.path={random_pipeline_folder}")
    assert load(ModelCache(), settings) is not load(ModelCache(), settings)
    assert len(loads) == 2


def test_only_the_last_model_stays_in_memory(settings_with: Compose, random_pipeline_folder: Path) -> None:
    path, models = f"model.path={random_pipeline_folder}", ModelCache()
    first = weakref.ref(load(models, settings_with(path)).pipe)
    load(models, settings_with(path, "model.guidance_scale=1"))
    gc.collect()
    assert first() is None


def test_other_weights_at_the_same_place_are_loaded(
    settings_with: Compose, random_pipeline_folder: Path, tmp_path: Path, loads: list[str]
) -> None:
    shutil.copytree(random_pipeline_folder, tmp_path / "model")
    settings, models = settings_with(f"model.path={tmp_path / 'model'}"), ModelCache()
    load(models, settings)
    os.utime(next(tmp_path.rglob("*.safetensors")), ns=(1, 1))
    load(models, settings)
    assert len(loads) == 2
