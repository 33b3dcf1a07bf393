"""The localize stage: figures, tables and a page from what other stages left, whichever of them were asked for."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.pipeline.table import AUDITED, LOCALIZING, stages_of
from icm_pipeline.results.localizers import Localizers, WindowEffect, Withheld
from icm_pipeline.stages import localize
from icm_pipeline.tracking.base import NoTracker
from tests.evaluation.test_localizing import LAYERS, RANKED, contributions, injections, probed
from tests.helpers.results import as_artifact
from tests.helpers.settings import TINY

Compose = Callable[..., Settings]


class Seen(NoTracker):
    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}
        self.images: list[str] = []

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        self.tables[name] = (columns, rows)

    def image(self, name: str, path: Path) -> None:
        self.images.append(name)


@pytest.mark.parametrize("asked", [("inject",), ("contribution",), ("inject", "contribution", "withhold")])
def test_the_page_tables_and_figures_are_of_what_was_asked_for(
    settings_with: Compose, tmp_path: Path, asked: tuple[str, ...]
) -> None:
    (tmp_path / "parents").mkdir()
    probed().write(tmp_path / "parents")
    injections(RANKED, 1, 3).write(tmp_path / "parents")
    contributions(RANKED).write(tmp_path / "parents")
    lost = WindowEffect(LAYERS[:1], 0.5, -0.4, (-0.6, -0.2), 0.1, 0.8)
    Withheld(16, 0.9, {"all": replace(lost, layers=LAYERS), "most 1": lost}).write(tmp_path / "parents")
    folder = tmp_path / "made"
    folder.mkdir()
    parents = dict.fromkeys(("probe", *asked), as_artifact(tmp_path / "parents"))
    localize.run(StageContext(settings_with(), parents, folder))
    page, found = (folder / "localizers.md").read_text("utf-8"), Localizers.read(as_artifact(folder))
    names = {path.name for path in folder.iterdir()}
    assert {"localizers.png", "correlations.png", "layers.csv", "correlations.csv"} <= names
    assert ("windows.csv" in names) == ("inject" in asked) == ("## Injection" in page)
    assert ("withheld.csv" in names) == ("withhold" in asked) == ("| most 1 | 0.500 | -0.400 |" in page)
    with (folder / "layers.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == LAYERS
    assert [float(row["probe accuracy"]) for row in rows] == RANKED
    if "inject" in asked:
        assert rows[0]["injection, 3 layers"] == "" and float(rows[1]["injection, 3 layers"]) == RANKED[1]
        with (folder / "windows.csv").open(encoding="utf-8") as file:
            windows = list(csv.DictReader(file))
        assert [row["layers"] for row in windows[:2]] == ["none", "all"] and len(windows) == 2 + 8 + 6
    seen = Seen()
    localize.show(seen, as_artifact(folder))
    assert seen.images == ["localize/correlations", "localize/localizers"]
    assert len(seen.tables["localize/correlations"][1]) == len(found.correlations) > 0


@pytest.mark.parametrize(
    ("words", "stages", "needs"),
    [
        ([], set(), None),
        (["localizers.injection=true"], {"inject", "localize"}, ("probe", "inject")),
        (["localizers.contribution=true"], {"contribution", "localize"}, ("probe", "contribution")),
        (["localizers.contribution=true", "localizers.causal=true"], {"contribution", "causal", "localize"},
         ("probe", "contribution", "causal")),
        (["localizers.injection=true", "layers.rule=causal"], {"inject", "causal", "localize"},
         ("probe", "inject", "causal")),
        (["localizers.intervention=true"], {"contribution", "withhold", "localize"},
         ("probe", "contribution", "withhold")),
        (["stage=inject"], {"inject"}, None),
        (["stage=withhold"], {"withhold"}, None),
    ],
)  # fmt: skip
def test_a_run_makes_the_localizers_that_are_asked_for_and_compares_these(
    settings_with: Compose, words: list[str], stages: set[str], needs: tuple[str, ...] | None
) -> None:
    settings = settings_with(*words)
    assert set(stages_of(settings)) & {*AUDITED, *LOCALIZING} == stages
    if needs is not None:
        assert tuple(Keys(settings).parents("localize")) == needs


CHANGED_BY = {
    "seed=7": {*LOCALIZING}, "model.num_steps=7": {*LOCALIZING}, "localizers.images=7": {*LOCALIZING},
    "localizers.windows=[2]": {"inject", "withhold", "localize"},
    "timesteps.count=5": {"contribution", "withhold", "localize"},
    "labeler.path=other": {"inject", "withhold", "localize"},
    "evaluate.clip.path=other": {"inject", "withhold", "localize"},
    "attribute.evaluation_prompts=[a dog]": {"inject", "withhold", "localize"},
    "probe.C=7": {"localize"}, "alpha=7": set(),
    "attribute.named.woman='womanly {}'": {*LOCALIZING}, "compute.batch_size=1": set(), "layers.k=1": set(),
    "localizers.causal=true": {"localize"}, "judge.path=other": set(),
}  # fmt: skip


@pytest.mark.parametrize("word", CHANGED_BY)
def test_a_setting_changes_exactly_the_keys_of_the_localizers_that_read_it(settings_with: Compose, word: str) -> None:
    both = ("localizers.injection=true", "localizers.intervention=true")
    before, after = Keys(settings_with(*both)), Keys(settings_with(*both, word))
    assert {name for name in LOCALIZING if before.key(name) != after.key(name)} == CHANGED_BY[word]


def test_asking_for_localizers_changes_no_other_stages_key(settings_with: Compose) -> None:
    plain, asked = (Keys(settings_with(*words)) for words in ((), ("localizers.injection=true", "localizers.images=3")))
    for stage in ("generate", "label", "probe", "causal", "select", "steer", "evaluate", "named", "push", "audit"):
        assert plain.key(stage) == asked.key(stage)


@pytest.mark.parametrize("experiment", ["injection", "contribution"])
def test_shipped_experiments_ask_for_one_and_can_be_taken_together(compose_settings: Compose, experiment: str) -> None:
    alone, both = (compose_settings(f"experiment={each}") for each in (experiment, "[injection,contribution]"))
    assert [alone.localizers.injection, alone.localizers.contribution] == [
        experiment == "injection", experiment == "contribution"
    ]  # fmt: skip
    assert alone.localizers.intervention == alone.localizers.contribution
    assert both.localizers.injection and both.localizers.contribution


@pytest.mark.slow
def test_the_whole_pipeline_localizes_on_the_embedded_model(
    settings_with: Compose, tmp_path: Path, models: ModelCache
) -> None:
    small = ("localizers.injection=true", "localizers.intervention=true", "localizers.images=2",
             "localizers.windows=[1]", f"paths.outputs={tmp_path}")  # fmt: skip
    run = Pipeline(settings_with(*TINY, *small), [], NoTracker(), models=models)
    run.run("all")
    artifact = run.find("localize")
    assert artifact is not None and len(Localizers.read(artifact).layers) == 12
