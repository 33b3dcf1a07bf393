"""A stage is one row of the table and one file: nothing else has to know of it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icm_pipeline import stages
from icm_pipeline.cli.housekeeping import run_command
from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.stage import Stage
from icm_pipeline.pipeline.table import STAGES, stages_help
from icm_pipeline.planning.plan import Plan
from icm_pipeline.planning.tables import print_plan

Compose = Callable[..., Settings]
FILE = """
from icm_pipeline.pipeline.workload import Workload


def run(context):
    (context.folder / "toy.txt").write_text(f"{context.settings.seed}")


def work(settings, outline):
    return Workload(num_images=7, stored=4000)


def show(tracker, artifact):
    tracker.metrics({"toy/seed": float(artifact.path("toy.txt").read_text())})
"""


class Seen:
    """A tracker that keeps what it is given."""

    def __init__(self) -> None:
        self.scalars: dict[str, float] = {}
        self.stages: list[str] = []

    def metrics(self, values: dict[str, float]) -> None:
        self.scalars |= values

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None: ...

    def image(self, name: str, path: Path) -> None: ...

    def artifact(self, stage: str, key: str, parents: dict[str, str], folder: Path) -> None:
        self.stages.append(stage)

    def close(self, failed: bool = False) -> None: ...


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Give a function that adds a stage of a kind, for one test."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "toy.py").write_text(FILE)
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(tmp_path / "stages")])
    return lambda kind: monkeypatch.setitem(
        STAGES, "toy", Stage("toy", "write down the seed", kind=kind, reads=lambda s: ("seed",))
    )


@pytest.fixture
def settings(settings_with: Compose, tmp_path: Path) -> Settings:
    return settings_with("stage=toy", "seed=5", f"paths.outputs={tmp_path / 'outputs'}")


def test_a_new_stage_runs_is_shown_and_is_found_again(add: Callable[[Any], None], settings: Settings) -> None:
    add("result")
    check_stage(settings)
    seen = Seen()
    artifact = Pipeline(settings, [], seen).run("toy")
    assert artifact is not None
    assert artifact.path("toy.txt").read_text() == "5"
    assert seen.scalars["toy/seed"] == 5
    assert seen.stages == ["toy"]
    again = Pipeline(settings, [], seen)
    assert again.run("toy") == artifact
    assert again.reused == [artifact]


def test_a_new_stage_is_planned_and_named_in_the_help(
    add: Callable[[Any], None], settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    add("result")
    plan = Plan()
    assert plan.add(settings, []).makes[-1] == "toy"
    (item,) = [item for (name, _), item in plan.items.items() if name == "toy"]
    assert (item.work.num_images, item.disk) == (7, 4000)
    print_plan(plan)
    assert any("toy" in line and "will run" in line for line in capsys.readouterr().out.splitlines())
    assert "toy             write down the seed" in stages_help()


@pytest.mark.parametrize(("kind", "stays"), [("root", False), ("step", False), ("end", True), ("result", True)])
def test_a_new_stage_is_listed_and_kept_as_its_kind_says(
    add: Callable[[Any], None], settings: Settings, capsys: pytest.CaptureFixture[str], kind: str, stays: bool
) -> None:
    add(kind)
    artifact = Pipeline(settings, [], Seen()).run("toy")
    assert artifact is not None
    assert run_command(["ls", "--stage", "toy", "--outputs", settings.paths.outputs]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if artifact.key in line]
    assert line.strip().startswith("*") == stays
    assert run_command(["gc", "--yes", "--older-than", "0", "--outputs", settings.paths.outputs]) == 0
    assert artifact.folder.exists() == stays


def test_the_guide_to_long_runs_names_the_stages_that_can_be_shared() -> None:
    text = (Path(__file__).parents[2] / "docs" / "running.md").read_text("utf-8")
    (listed,) = [line.split(" can be shared")[0] for line in text.splitlines() if " can be shared. " in line]
    assert re.findall(r"`(\w+)`", listed) == [name for name, stage in STAGES.items() if stage.shared]
