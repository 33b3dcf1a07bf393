"""What a fit costs: the time of all jobs that it took."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from icm_pipeline.config.schema import Settings
from icm_pipeline.methods.base import Fit, Method
from icm_pipeline.results.steering import FitCost
from icm_pipeline.stages import fit
from icm_pipeline.store.artifacts import STAMP
from icm_pipeline.store.files import write_json
from tests.helpers.results import as_artifact


@pytest.mark.parametrize("before", [0.0, 900.0])
def test_a_fit_that_goes_on_tells_the_seconds_of_the_jobs_before_too(
    tmp_path: Path, settings_with: Any, monkeypatch: pytest.MonkeyPatch, before: float
) -> None:
    settings: Settings = settings_with()
    method = Method("quick", applied=lambda *_: None, words=lambda _: [], fit=Fit(lambda *_: 3))  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(fit, "method_named", lambda name: method)
    loaded = SimpleNamespace(family=None, name="tiny")
    write_json(tmp_path / STAMP, {"key": "k", "seconds": before})
    models = SimpleNamespace(load=lambda *_: loaded)
    fit.run(SimpleNamespace(settings=settings, parents={}, folder=tmp_path, models=models))  # type: ignore[arg-type]
    cost = FitCost.read(as_artifact(tmp_path))
    assert cost.images == 3
    assert before <= cost.seconds < before + 60
