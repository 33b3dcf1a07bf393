"""alpha=auto on the embedded model: each option gets an alpha of its own, which steers and stays with the vectors."""

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icm_pipeline import api
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import evaluation_jobs, probe_jobs, tuning_jobs
from icm_pipeline.methods import vectors
from icm_pipeline.methods.tuning import budget_for
from icm_pipeline.methods.vectors import load_vectors
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.table import stages_of
from icm_pipeline.planning.plan import Plan
from icm_pipeline.report.wording import describe
from icm_pipeline.results.steering import Steering
from icm_pipeline.results.tuning import Tuning
from icm_pipeline.stages import tune
from icm_pipeline.store.artifacts import SHARDS, Artifact
from icm_pipeline.store.partial import partial_of
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.settings import TINY

Compose = Callable[..., Settings]
MOST = 30
SMALL = (
    *TINY, "alpha=auto", "compute.batch_size=16", "generate.images_per_prompt=2", "model.steering.alpha=6",
    "model.num_steps=2",
)  # fmt: skip
BEFORE = ("generate", "label", "probe", "select")


class DarkerLabeler:
    """Says woman of a picture that is brighter than a bound."""

    def __init__(self, bound: float) -> None:
        self.bound = bound

    def label(self, images: Sequence[Any], questions: dict[str, Any]) -> dict[str, np.ndarray]:
        bright = np.array([np.asarray(image).mean() > self.bound for image in images])
        return {name: np.stack([bright, ~bright], axis=1).astype(float) for name in questions}


@pytest.fixture(scope="module")
def pipeline_in(settings_with: Compose, models: ModelCache) -> Iterator[Callable[..., Pipeline]]:
    """Give a function from an outputs folder and words to a pipeline whose searches take a few dozen images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "budget_for", partial(budget_for, most=MOST))
        yield lambda outputs, *words: Pipeline(
            settings_with(*SMALL, f"paths.outputs={outputs}", *words), [], NoTracker(), models=models
        )


@pytest.fixture(scope="module")
def learned(pipeline_in: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of the stages before a search."""
    outputs = tmp_path_factory.mktemp("learned")
    for stage in BEFORE:
        pipeline_in(outputs).run(stage)
    return outputs


@pytest.fixture
def pipeline(pipeline_in: Callable[..., Pipeline], learned: Path, tmp_path: Path) -> Pipeline:
    """A pipeline that is about to search."""
    shutil.copytree(learned, tmp_path / "outputs")
    return pipeline_in(tmp_path / "outputs")


@pytest.fixture(scope="module")
def searched(pipeline_in: Callable[..., Pipeline], learned: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A pipeline that has searched and steered; who makes something with it does so in another folder."""
    outputs = tmp_path_factory.mktemp("searched")
    shutil.copytree(learned, outputs, dirs_exist_ok=True)
    run = pipeline_in(outputs)
    stages = stages_of(run.settings)
    for stage in stages[: stages.index("steer") + 1]:
        run.run(stage)
    return run


def found(pipeline: Pipeline, stage: str) -> Artifact:
    artifact = pipeline.find(stage)
    assert artifact is not None
    return artifact


def test_each_option_is_steered_by_the_alpha_that_was_searched_for_it(
    searched: Pipeline, pipeline_in: Callable[..., Pipeline]
) -> None:
    run = searched
    tuning, steering = Tuning.read(found(run, "tune")), Steering.read(found(run, "steer"))
    assert list(tuning.options) == ["woman", "man"]
    assert tuning.num_images <= MOST
    alphas = {option: tuned.alpha for option, tuned in tuning.options.items()}
    assert steering.tuned == alphas
    assert steering.alpha == pytest.approx(sum(alphas.values()) / 2)
    assert f"alpha auto (woman {alphas['woman']:.3g}, man {alphas['man']:.3g})" in describe(steering)
    vectors = load_vectors(found(run, "steer").path("vectors.safetensors"))
    assert vectors.tuned == tuning.options
    assert vectors.strength is not None
    assert vectors.strength.alpha == max(alphas.values())
    fixed = pipeline_in(run.settings.paths.outputs, f"alpha={alphas['woman']}")
    fixed.run("steer")
    same = [_pictures(one, "woman") for one in (run, fixed)]
    assert same[0] == same[1] != []


def _pictures(pipeline: Pipeline, option: str) -> list[bytes]:
    folder = found(pipeline, "steer").folder
    rows = [line.split(",") for line in (folder / "images.csv").read_text().splitlines()]
    return [(folder / row[rows[0].index("path")]).read_bytes() for row in rows[1:] if option in row]


def test_vectors_in_a_file_steer_each_option_by_its_own_alpha(
    searched: Pipeline, models: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = load_vectors(found(searched, "steer").path("vectors.safetensors"))
    pipe = models.load(searched.settings.model, searched.settings.compute).pipe
    seen: list[Any] = []
    monkeypatch.setattr(api, "Shift", lambda vectors, options, strength: seen.append(strength.alpha))
    monkeypatch.setattr(api, "hooked", lambda *args, **kwargs: torch.no_grad())
    own = {name: tuned.alpha for name, tuned in vectors.tuned.items()}
    for option, alpha in (("man", None), (["man", "woman"], None), ("man", 2.0)):
        with api.steer(pipe, vectors, option, alpha=alpha):  # type: ignore[arg-type]
            pass
    assert seen == [own["man"], [own["man"], own["woman"]], 2.0]
    with pytest.raises(ValueError, match="No alpha was searched for 'child'; there is one for woman, man"):
        vectors.alpha_of("child")


def test_a_search_looks_at_no_image_of_a_dataset_and_leaves_nothing_when_it_is_stopped(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, prompts = set[int](), set[str]()

    def stopping(backbone: Any, jobs: list[Any]) -> Any:
        seeds.update(job.seed for job in jobs)
        prompts.update(job.prompt for job in jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "denoise", stopping)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run("tune")
    assert pipeline.find("tune") is None
    assert len(tuning_jobs(pipeline.settings, 30)) == 30
    assert seeds != set()
    assert seeds.isdisjoint(job.seed for job in (*probe_jobs(pipeline.settings), *evaluation_jobs(pipeline.settings)))
    assert prompts.isdisjoint(pipeline.settings.attribute.evaluation_prompts)


def test_a_share_that_no_alpha_reaches_and_an_option_that_all_show_are_told(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tune, "load_labeler", lambda config: DarkerLabeler(-1.0))
    with caplog.at_level(logging.WARNING):
        pipeline.run("tune")
    options = json.loads(found(pipeline, "tune").path("tune.json").read_text())["options"]
    assert options["woman"] == {"alpha": 6.0, "share": 0.0, "reached": False, "images": 0, "made": 0, "curve": []}
    assert (options["man"]["alpha"], options["man"]["share"], options["man"]["reached"]) == (6.0, 0.0, False)
    assert "every trial image shows woman" in caplog.text
    assert "no alpha turns 95 %" in caplog.text


class Stopping:
    """Counts the images that are denoised, and stops the search before a batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made, self.left = list[int](), sys.maxsize
        self._denoise = tune.denoise
        monkeypatch.setattr(tune, "denoise", self)

    def __call__(self, backbone: Any, jobs: list[Any]) -> Any:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.made.append(len(jobs))
        return self._denoise(backbone, jobs)

    def run(self, pipeline: Pipeline, num_batches: int) -> None:
        """Search until so many batches are made."""
        self.left = num_batches
        with pytest.raises(KeyboardInterrupt):
            pipeline.run("tune")
        self.left = sys.maxsize


def test_a_search_that_is_killed_goes_on_and_makes_nothing_twice(
    searched: Pipeline, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopping = Stopping(monkeypatch)
    for num_batches in (1, 3):
        stopping.run(pipeline, num_batches)
    plan = Plan()
    plan.add(pipeline.settings, [])
    assert plan.items["tune", pipeline.keys.key("tune")].kept == sum(stopping.made)
    caplog.set_level(logging.INFO)
    pipeline.run("tune")
    assert f"going on with the answers of {sum(stopping.made[:4])} images" in caplog.text
    whole = found(searched, "tune")
    assert sum(stopping.made) == Tuning.read(whole).num_images
    assert found(pipeline, "tune").path("tune.json").read_bytes() == whole.path("tune.json").read_bytes()
    assert sorted(path.name for path in found(pipeline, "tune").folder.iterdir()) == ["manifest.json", "tune.json"]


def test_answers_that_are_damaged_or_of_other_images_are_asked_for_again(
    searched: Pipeline, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = Stopping(monkeypatch)
    stopping.run(pipeline, 5)
    tables = sorted((partial_of(pipeline.keys.folder("tune")) / SHARDS).glob("*.json"))
    tables[1].with_suffix(".safetensors").write_bytes(b"short")
    tables[2].write_text(tables[2].read_text().replace("woman", "man"))
    tables[3].write_text("{")
    again = sum(stopping.made[1:4])
    pipeline.run("tune")
    whole = found(searched, "tune")
    assert sum(stopping.made) == Tuning.read(whole).num_images + again
    assert found(pipeline, "tune").path("tune.json").read_bytes() == whole.path("tune.json").read_bytes()


def test_vectors_are_read_once_for_all_trials(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[Path]()

    def counted(path: Path, layers: list[str] | None = None) -> Any:
        read.append(path)
        return load_vectors(path, layers)

    monkeypatch.setattr(vectors, "load_vectors", counted)
    monkeypatch.setattr(tune, "load_labeler", lambda config: DarkerLabeler(-1.0))
    pipeline.run("tune")
    assert len(read) == 1


@pytest.mark.parametrize("alpha", ["0", "-1"])
def test_a_search_needs_an_alpha_to_begin_with(settings_with: Compose, alpha: str) -> None:
    with pytest.raises(ConfigError, match=r"alpha=auto begins at model\.steering\.alpha"):
        check_stage(settings_with("alpha=auto", f"model.steering.alpha={alpha}"))
