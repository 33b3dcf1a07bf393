"""What tests of methods share: the pipeline on the embedded model, whose artifacts all methods reuse."""

from collections.abc import Callable
from pathlib import Path

import pytest

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.table import STAGES
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.running import Run
from tests.helpers.settings import TINY

SMALL = ("tracker=none", "generate.images_per_prompt=3", "generate.shard_size=64", "compute.batch_size=15")


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture
def run(outputs: Path, models: ModelCache, compose_settings: Callable[..., Settings]) -> Run:
    def made(stage: str, *words: str) -> Path:
        pipeline = Pipeline(
            compose_settings(*TINY, *SMALL, f"paths.outputs={outputs}", *words), [], NoTracker(), models=models
        )

        def make(name: str) -> Path:
            for parent in STAGES[name].needs(pipeline.settings):
                make(parent)
            artifact = pipeline.run(name)
            assert artifact is not None
            return artifact.folder

        return make(stage)

    return made
