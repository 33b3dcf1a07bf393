"""The inject stage: windows of cross-attention layers see the prompt that names an option, and images tell."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation import judging
from icm_pipeline.generation.jobs import evaluation_jobs, probe_jobs
from icm_pipeline.generation.named import explicit_prompt
from icm_pipeline.images.pictures import read_picture
from icm_pipeline.images.table import read_made
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.effects import UNSTEERED, Pushes, arm_of
from icm_pipeline.results.localizers import Injections
from icm_pipeline.stages import arms, inject
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.models import NUM_STEPS
from tests.helpers.results import as_artifact
from tests.stages.test_causal import BrightnessLabeler

Compose = Callable[..., Settings]
Run = Callable[..., Path]


@pytest.fixture
def given(settings_with: Compose, random_pipeline_folder: Path) -> Compose:
    fixed = (
        f"model.path={random_pipeline_folder}", f"model.num_steps={NUM_STEPS}", "model.guidance_scale=3",
        "model.scheduler=null", "localizers.images=4", "localizers.windows=[1,3]", "labeler.batch_size=1",
        "attribute.trial_subjects=[chef,judge]", "compute.batch_size=2", "generate.shard_size=4",
        "attribute.probe_templates=['a {}','the {}']",
    )  # fmt: skip
    return lambda *words: settings_with(*fixed, *words)


@pytest.fixture
def run(given: Compose, models: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give a function that runs the stage and returns its folder; CLIP is the mean colour of a picture."""
    monkeypatch.setattr(judging, "load_labeler", lambda config, setting: BrightnessLabeler())

    def embed(self: Any, rows: Any) -> np.ndarray:
        return np.stack([np.asarray(read_picture(row.path)).astype(float).mean((0, 1)) for row in rows])

    monkeypatch.setattr(judging.Judging, "embed", embed)

    def ran(*words: str) -> Path:
        folder = tmp_path / "artifacts" / "inject" / "made"
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        inject.run(StageContext(given(*words), {}, folder, models=models))
        return folder

    return ran


def brightness(path: Path) -> float:
    return float(np.asarray(read_picture(path)).astype(float).mean() / 255)


def test_each_window_has_the_change_of_the_injected_option_against_the_same_images(run: Run) -> None:
    folder = run()
    rows, found, pushes = read_made(folder), Injections.read(as_artifact(folder)), Pushes.read(as_artifact(folder))
    num_layers = len(found.layers)
    assert [len(window.layers) for window in found.windows] == [1] * num_layers + [3] * (num_layers - 2)
    assert found.everywhere.layers == found.layers
    seen = {row.image_id: brightness(row.path) for row in rows}
    for name, window in zip(list(pushes.arms)[2:], found.windows, strict=True):
        assert pushes.arms[name].layers == window.layers
        own = [row for row in rows if arm_of(row.image_id)[0] == name]
        signs = [1 if row.option == "woman" else -1 for row in own]
        twins = [f"{UNSTEERED}-{arm_of(row.image_id)[1]}" for row in own]
        changes = [(seen[row.image_id] - seen[twin]) * sign for row, twin, sign in zip(own, twins, signs, strict=True)]
        assert window.effect == pytest.approx(np.mean(changes)) != 0
        assert window.interval_95[0] < window.effect < window.interval_95[1]
        assert window.share - found.share == pytest.approx(window.effect)
        assert 0.5 < window.clip_i < 1
        of_subject = [[seen[r.image_id] for r in own if r.prompt.endswith(name)] for name in ("chef", "judge")]
        fds = [np.hypot(mean - 0.5, 0.5 - mean) for mean in map(np.mean, of_subject)]
        assert window.fd == pytest.approx(np.mean(fds))
    assert len(set(seen.values())) > len(rows) / 2


def test_options_are_equally_many_of_each_subject_and_no_image_is_probed_or_evaluated(run: Run, given: Compose) -> None:
    rows, settings = read_made(run()), given()
    own = [row for row in rows if arm_of(row.image_id)[0] == inject.EVERYWHERE]
    told = sorted((explicit_prompt(settings.attribute, row.prompt, row.option).subject, row.option) for row in own)
    assert told == [("chef", "man"), ("chef", "woman"), ("judge", "man"), ("judge", "woman")]
    assert {row.seed for row in rows}.isdisjoint(
        job.seed for job in (*probe_jobs(settings), *evaluation_jobs(settings))
    )
    assert {row.prompt for row in rows}.isdisjoint(settings.attribute.evaluation_prompts)
    assert [row.option for row in rows if arm_of(row.image_id)[0] == UNSTEERED] == [""] * 4


def test_an_interrupted_stage_goes_on_and_comes_to_the_same_images(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {row.image_id: row.path.read_bytes() for row in read_made(run())}
    made: list[str] = []
    real = arms.decode

    def counting(backbone: Any, jobs: Any, latents: Any) -> Any:
        made.extend(job.image_id for job in jobs)
        return real(backbone, jobs, latents)

    monkeypatch.setattr(arms, "decode", counting)
    assert {row.image_id: row.path.read_bytes() for row in read_made(run())} == whole
    assert made == []  # all shards are there
    folder = run()
    last = sorted(path for path in (folder / "shards").iterdir() if path.suffix == ".json")[-1]
    last.unlink()
    assert {row.image_id: row.path.read_bytes() for row in read_made(run())} == whole
    assert 0 < len(made) <= 4


def test_windows_at_the_ends_are_as_wide_as_all_others() -> None:
    found = inject.windows_of(["a", "b", "c", "d"], [1, 3])
    assert list(found.values()) == [["a"], ["b"], ["c"], ["d"], ["a", "b", "c"], ["b", "c", "d"]]
    assert len(found) == len(set(found)) and not any("-" in name for name in found)
    with pytest.raises(ValueError, match="2 cross-attention layers have none of 3"):
        inject.windows_of(["a", "b"], [1, 3])


@pytest.mark.parametrize("words", [["localizers.injection=true"], ["stage=inject"], ["stage=contribution"]])
def test_an_attribute_that_no_prompt_can_name_is_refused_before_anything_is_made(given: Compose, words: Any) -> None:
    settings = given(*words, "labeler.path=a", "judge.path=a", "evaluate.clip.path=a")
    check_stage(settings)
    settings.attribute.named = {}
    with pytest.raises(ConfigError, match=r"attribute\.named does not say how a prompt names an option of 'gender'"):
        check_stage(settings)


def test_nothing_to_compare_and_windows_that_are_none_are_refused(given: Compose) -> None:
    with pytest.raises(ConfigError, match="add experiment=injection or contribution"):
        check_stage(given("stage=localize"))
    for windows in ("[]", "[0]", "[1,1]"):
        with pytest.raises(ConfigError, match=r"localizers\.windows="):
            given(f"localizers.windows={windows}")


def test_show_logs_a_row_a_window(run: Run) -> None:
    class Seen(NoTracker):
        def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
            seen[name] = (columns, rows)

    seen: dict[str, Any] = {}
    artifact = as_artifact(run())
    inject.show(Seen(), artifact)
    columns, rows = seen["inject/windows"]
    assert columns[0] == "layers" and len(rows) == 2 + len(Injections.read(artifact).windows)
