"""What the explorer's tests share: the shipped vectors on the embedded model, with four steps of small pictures."""

from collections.abc import Callable

import pytest

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.schema import Settings
from icm_pipeline.explore.material import Material
from icm_pipeline.explore.sources import opened
from icm_pipeline.explore.studio import Studio

SMALL = (
    "stage=explore", "model.path=embedded:tiny", "judge.path=embedded:tiny-classifier", "model.num_steps=4",
    "model.height=32", "model.width=32", "paths.outputs=nowhere",
)  # fmt: skip


@pytest.fixture(scope="session")
def shipped(settings_with: Callable[..., Settings]) -> list[Material]:
    """What the package ships for the embedded model."""
    return opened(settings_with(*SMALL))


@pytest.fixture(scope="session")
def gender(shipped: list[Material]) -> Material:
    return shipped[0]


@pytest.fixture(scope="session")
def skin_tone(shipped: list[Material]) -> Material:
    return next(material for material in shipped if material.name == "skin_tone")


@pytest.fixture
def studio(shipped: list[Material], models: ModelCache) -> Studio:
    """A studio that has made nothing yet."""
    return Studio(shipped, models)
