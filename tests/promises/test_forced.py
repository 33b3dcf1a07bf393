"""force=true and what a run would make: each artifact once, however many jobs of a process ask for it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.tracking.base import NoTracker

Made = Callable[..., list[str]]
BEFORE = ["generate", "label", "probe", "select", "originals"]
OWN = ["steer", "evaluate"]  # and the report, of which it is not known before the evaluation


@pytest.fixture
def pipeline_of(
    settings_with: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Pipeline]:
    """Give a function from words to pipelines of jobs in one process, whose stages write one file."""
    forced: set[str] = set()

    def run(context: StageContext) -> None:
        (context.folder / "out.json").write_text("1")

    monkeypatch.setattr("icm_pipeline.pipeline.stage.import_module", lambda module: SimpleNamespace(run=run))

    def pipeline(*words: str) -> Pipeline:
        settings = settings_with(*words, f"paths.outputs={tmp_path}")
        return Pipeline(settings, list(words), NoTracker(), forced=forced)

    return pipeline


def test_a_forced_sweep_makes_what_its_jobs_share_once(pipeline_of: Callable[..., Pipeline]) -> None:
    pipeline_of("alpha=1").run("all")
    first, second = pipeline_of("alpha=1", "force=true"), pipeline_of("alpha=2", "force=true")
    assert first.missing("all") == [*BEFORE, *OWN]
    first.run("all")
    assert first.reused == []
    assert second.missing("all") == OWN
    second.run("all")
    assert [artifact.stage for artifact in second.reused] == BEFORE


def test_a_run_knows_what_it_would_make(pipeline_of: Callable[..., Pipeline]) -> None:
    fresh = pipeline_of()
    assert fresh.missing("all") == [*BEFORE, *OWN]
    assert fresh.missing("probe") == ["probe"]
    fresh.run("all")
    assert pipeline_of().missing("probe") == []
    assert pipeline_of().missing("all") == pipeline_of().missing("report") == []
    assert pipeline_of("layers.k=2").missing("all") == ["select", *OWN]


def test_a_folder_that_a_later_stage_would_miss_is_refused_before_the_first(
    pipeline_of: Callable[..., Pipeline],
) -> None:
    with pytest.raises(ValueError, match=r"evaluate\.reference=/nowhere is no folder"):
        pipeline_of("evaluate.reference=/nowhere").missing("generate")
