"""A stage that comes to other results than before, of the same settings, does not pass old ones off as its own."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from icm_pipeline.config.schema import Settings
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.table import STAGES, stages_of
from icm_pipeline.store.fingerprints import make_key

Compose = Callable[..., Settings]


def key(settings: Settings, stage: str, version: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(STAGES, stage, replace(STAGES[stage], version=version))
    return Keys(settings).key(stage)


@pytest.mark.parametrize("stage", ["label", "evaluate"])
def test_each_version_of_a_stage_has_a_key_of_its_own(
    settings_with: Compose, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    settings = settings_with()
    first, second, third = (key(settings, stage, version, monkeypatch) for version in range(3))
    assert len({first, second, third}) == 3
    assert key(settings, stage, 1, monkeypatch) == second


def test_a_version_changes_the_keys_of_what_is_made_from_the_stage_and_no_others(
    settings_with: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_with()
    before = {name: Keys(settings).key(name) for name in stages_of(settings)}
    monkeypatch.setitem(STAGES, "probe", replace(STAGES["probe"], version=1))
    after = {name: Keys(settings).key(name) for name in before}
    assert {name for name in before if before[name] != after[name]} == {
        "probe", "select", "steer", "evaluate", "report",
    }  # fmt: skip


def test_a_stage_without_a_version_has_the_key_it_had_before_there_were_any(settings_with: Compose) -> None:
    keys = Keys(settings_with())
    for name in ("generate", "label", "probe", "select", "originals", "steer"):
        content = keys.content(name)
        first = {part: content[part] for part in ("stage", "format", "config", "weights")}
        assert keys.key(name) == make_key({**first, "parents": keys.parents(name)})


def test_evaluations_with_the_narrower_intervals_of_before_are_not_reused(settings_with: Compose) -> None:
    keys = Keys(settings_with())
    before = {part: value for part, value in keys.content("evaluate").items() if part != "version"}
    assert keys.key("evaluate") != make_key({**before, "parents": keys.parents("evaluate")})
