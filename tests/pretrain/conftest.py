"""A plan that trains each part for one step on four portraits."""

from collections.abc import Callable
from pathlib import Path

import pytest

from icm_pipeline.config.choices import SIBLINGS
from icm_pipeline.config.schema import Settings
from icm_pipeline.pretrain.parts import PretrainPlan
from icm_pipeline.tracking.base import NoTracker


@pytest.fixture
def plan_of(settings_with: Callable[..., Settings], tmp_path: Path) -> Callable[..., PretrainPlan]:
    """Give a function from words to such a plan, which goes on from the shipped weights."""
    pytest.importorskip("dicebear")
    parts = ("diffusion", "deep_compression", *SIBLINGS)
    each = {"steps": "1", "batch_sizes": "2", "learning_rates": "1e-9"}
    words = [f"pretrain.{name}.{part}={value}" for name, value in each.items() for part in parts]
    words += [f"pretrain.num_{name}=4" for name in ("portraits", "held_out", "quality_images")]
    words += ["model.path=embedded:tiny", f"pretrain.folder={tmp_path}", "pretrain.from_shipped=true"]
    return lambda *more: PretrainPlan(settings_with(*words, *more), NoTracker())


@pytest.fixture
def plan(plan_of: Callable[..., PretrainPlan]) -> PretrainPlan:
    return plan_of()
