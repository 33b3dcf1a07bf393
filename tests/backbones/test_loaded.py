"""The model that was loaded last: one for all who are given the same cache, none in common for others."""

import gc
import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icm_pipeline.backbones import registry
from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.schema import Settings

Compose = Callable[..., Settings]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give a list of the models that are loaded from disk."""
    names: list[str] = []
    load_backbone = registry.load_backbone

    def loading(name: str, **options: Any) -> Backbone:
        names.append(name)
        return load_backbone(name=name, **options)

    monkeypatch.setattr(registry, "load_backbone", loading)
    return names


def test_a_model_is_loaded_once_for_stages_and_jobs_that_want_the_same(
    settings_with: Compose, random_pipeline_folder: Path, loads: list[str]
) -> None:
    path, models = f"model.path={random_pipeline_folder}", ModelCache()
    first = models.load(settings_with(path).model)
    assert models.load(settings_with(path, "alpha=3", "model.batch_size=2").model) is first
    assert len(loads) == 1
    assert models.load(settings_with(path, "model.num_steps=3").model) is not first
    assert len(loads) == 2


def test_runs_that_are_given_no_common_cache_share_no_model(
    settings_with: Compose, random_pipeline_folder: Path, loads: list[str]
) -> None:
    model = settings_with(f"model.path={random_pipeline_folder}").model
    assert ModelCache().load(model) is not ModelCache().load(model)
    assert len(loads) == 2


def test_only_the_last_model_stays_in_memory(settings_with: Compose, random_pipeline_folder: Path) -> None:
    path, models = f"model.path={random_pipeline_folder}", ModelCache()
    first = weakref.ref(models.load(settings_with(path).model).pipe)
    models.load(settings_with(path, "model.guidance_scale=1").model)
    gc.collect()
    assert first() is None


def test_other_weights_at_the_same_place_are_loaded(
    settings_with: Compose, random_pipeline_folder: Path, tmp_path: Path, loads: list[str]
) -> None:
    shutil.copytree(random_pipeline_folder, tmp_path / "model")
    settings, models = settings_with(f"model.path={tmp_path / 'model'}"), ModelCache()
    models.load(settings.model)
    os.utime(next(tmp_path.rglob("*.safetensors")), ns=(1, 1))
    models.load(settings.model)
    assert len(loads) == 2
