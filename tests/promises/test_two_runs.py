"""Two runs in one process share no model, no forced artifacts and no progress, unless they are given the same."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from icm_pipeline import progress
from icm_pipeline.backbones import registry
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.schema import Settings
from icm_pipeline.machine.threads import limited_threads, num_cores
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.progress import working
from icm_pipeline.tracking.base import NoTracker

STAGES = ["generate", "label", "probe", "select", "originals", "steer", "evaluate", "report"]


@dataclass
class Run:
    """What the stages of one run saw."""

    made: list[str] = field(default_factory=list)
    models: list[Any] = field(default_factory=list)
    cores: set[int] = field(default_factory=set)

    @property
    def model(self) -> Any:
        assert {id(model) for model in self.models} == {id(self.models[0])}
        return self.models[0]


@pytest.fixture
def run(settings_with: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Give a function that runs all stages, with force=true, in a folder that two runs may have in common.

    Each stage loads the model, says that it is half done and writes a file; `meanwhile` is called within the third.
    """
    monkeypatch.setattr(registry, "load_backbone", lambda *_, **__: SimpleNamespace(sites=[]))
    monkeypatch.setattr(progress, "on_terminal", lambda: False)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    current = threading.local()

    def run_stage(context: StageContext) -> None:
        seen, name = current.run, context.folder.parent.name
        seen.made.append(name)
        seen.models.append(context.models.load(context.settings.model, context.settings.compute))
        seen.cores.add(num_cores())
        with working(f"{name} of alpha {context.settings.alpha:g}", 2, "image") as work:
            if name == "probe":
                current.meanwhile()
            work.advance()
        (context.folder / "out.json").write_text("1")

    monkeypatch.setattr("icm_pipeline.pipeline.stage.import_module", lambda _: SimpleNamespace(run=run_stage))

    def ran(folder: str, *words: str, meanwhile: Callable[[], Any] = lambda: None, **shared: Any) -> Run:
        current.run, current.meanwhile = Run(), meanwhile
        settings = settings_with("force=true", f"paths.outputs={tmp_path / folder}", *words)
        Pipeline(settings, [], NoTracker(), **shared).run("all")
        return current.run

    return ran


def test_two_runs_in_two_threads_share_nothing(run: Callable[..., Run], caplog: pytest.LogCaptureFixture) -> None:
    """The other run, of the same keys, goes from its first stage to its last within a stage of the first."""
    caplog.set_level(logging.INFO, "icm_pipeline.progress")
    others: list[Run] = []

    def other() -> None:
        with limited_threads(1):
            others.append(run("theirs"))

    def in_a_thread() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    ours = run("ours", meanwhile=in_a_thread)
    lines = [f"{number}/8 {stage} of alpha 1" for number, stage in enumerate(STAGES, 1)]
    assert [ours.made, others[0].made] == [STAGES, STAGES]
    assert ours.model is not others[0].model
    assert others[0].cores == {1}
    assert ours.cores == {num_cores()}
    assert [message.split(":")[0] for message in caplog.messages] == [*lines[:2], *lines, *lines[2:]]


def test_of_two_runs_one_after_the_other_each_makes_what_it_is_forced_to(run: Callable[..., Run]) -> None:
    first, second = run("outputs"), run("outputs")
    assert [first.made, second.made] == [STAGES, STAGES]
    assert first.model is not second.model


def test_jobs_of_a_sweep_share_their_model_and_what_they_were_forced_to_make(run: Callable[..., Run]) -> None:
    shared = {"forced": set(), "models": ModelCache()}
    first, second = run("outputs", **shared), run("outputs", "alpha=2", **shared)
    assert second.made == ["steer", "evaluate", "report"]
    assert first.model is second.model
