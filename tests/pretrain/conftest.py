"""A plan that trains each part for one step on four portraits."""

from collections.abc import Callable
from pathlib import Path

import pytest

from icm_pipeline.config.choices import SIBLINGS
from icm_pipeline.config.schema import Settings
from icm_pipeline.pretrain.parts import PretrainPlan
from icm_pipeline.tracking.base import NoTracker
from icm_pipeline.zoo.paths import ZOO


@pytest.fixture
def plan(settings_with: Callable[..., Settings], tmp_path: Path) -> PretrainPlan:
    pytest.importorskip("dicebear")
    parts = ("diffusion", "deep_compression", *SIBLINGS)
    return PretrainPlan(
        model=settings_with("model.path=embedded:tiny").model,
        folder=tmp_path,
        zoo=tmp_path / "zoo",
        device="cpu",
        seed=0,
        num_portraits=4,
        num_held_out=4,
        num_quality_images=4,
        steps=dict.fromkeys(parts, 1),
        batch_sizes=dict.fromkeys(parts, 2),
        learning_rates=dict.fromkeys(parts, 1e-9),
        compile=False,
        start_from=ZOO,
        attributes={},
        evaluation_prompts=[],
        tracker=NoTracker(),
    )
