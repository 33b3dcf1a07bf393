"""alpha=auto on the embedded model: each option gets an alpha of its own, which steers and stays with the vectors."""

import json
import logging
from collections.abc import Callable, Sequence
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
from icm_pipeline.report.wording import describe
from icm_pipeline.results.steering import Steering
from icm_pipeline.results.tuning import Tuning
from icm_pipeline.stages import tune
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.settings import TINY

Compose = Callable[..., Settings]
MOST = 48
SMALL = (*TINY, "alpha=auto", "compute.batch_size=16", "generate.images_per_prompt=2", "model.steering.alpha=6")


class DarkerLabeler:
    """Says woman of a picture that is brighter than a bound."""

    def __init__(self, bound: float) -> None:
        self.bound = bound

    def label(self, images: Sequence[Any], questions: dict[str, Any]) -> dict[str, np.ndarray]:
        bright = np.array([np.asarray(image).mean() > self.bound for image in images])
        return {name: np.stack([bright, ~bright], axis=1).astype(float) for name in questions}


@pytest.fixture
def pipeline(
    settings_with: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: ModelCache
) -> Callable[..., Pipeline]:
    """Give a function from words to a pipeline whose searches take a few dozen images."""
    monkeypatch.setattr(tune, "budget_for", partial(budget_for, most=MOST))
    return lambda *words: Pipeline(
        settings_with(*SMALL, f"paths.outputs={tmp_path / 'outputs'}", *words), [], NoTracker(), models=models
    )


def found(pipeline: Pipeline, stage: str) -> Artifact:
    artifact = pipeline.find(stage)
    assert artifact is not None
    return artifact


def test_each_option_is_steered_by_the_alpha_that_was_searched_for_it(pipeline: Callable[..., Pipeline]) -> None:
    run = pipeline()
    run.run("all")
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
    fixed = pipeline(f"alpha={alphas['woman']}")
    fixed.run("steer")
    same = [_pictures(one, "woman") for one in (run, fixed)]
    assert same[0] == same[1] != []


def _pictures(pipeline: Pipeline, option: str) -> list[bytes]:
    folder = found(pipeline, "steer").folder
    rows = [line.split(",") for line in (folder / "images.csv").read_text().splitlines()]
    return [(folder / row[rows[0].index("path")]).read_bytes() for row in rows[1:] if option in row]


def test_vectors_in_a_file_steer_each_option_by_its_own_alpha(
    pipeline: Callable[..., Pipeline], models: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pipeline()
    run.run("all")
    vectors = load_vectors(found(run, "steer").path("vectors.safetensors"))
    pipe = models.load(run.settings.model, run.settings.compute).pipe
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
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pipeline()
    for stage in ("generate", "label", "probe", "select"):
        run.run(stage)
    seeds, prompts = set[int](), set[str]()

    def stopping(backbone: Any, jobs: list[Any]) -> Any:
        seeds.update(job.seed for job in jobs)
        prompts.update(job.prompt for job in jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "denoise", stopping)
    with pytest.raises(KeyboardInterrupt):
        run.run("tune")
    assert run.find("tune") is None
    assert len(tuning_jobs(run.settings, 30)) == 30
    assert seeds != set()
    assert seeds.isdisjoint(job.seed for job in (*probe_jobs(run.settings), *evaluation_jobs(run.settings)))
    assert prompts.isdisjoint(run.settings.attribute.evaluation_prompts)


def test_a_share_that_no_alpha_reaches_and_an_option_that_all_show_are_told(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = pipeline()
    for stage in ("generate", "label", "probe", "select"):
        run.run(stage)
    monkeypatch.setattr(tune, "load_labeler", lambda config: DarkerLabeler(-1.0))
    with caplog.at_level(logging.WARNING):
        run.run("tune")
    options = json.loads(found(run, "tune").path("tune.json").read_text())["options"]
    assert options["woman"] == {"alpha": 6.0, "share": 0.0, "reached": False, "images": 0, "made": 0, "curve": []}
    assert (options["man"]["alpha"], options["man"]["share"], options["man"]["reached"]) == (6.0, 0.0, False)
    assert "every trial image shows woman" in caplog.text
    assert "no alpha turns 95 %" in caplog.text


def test_vectors_are_read_once_for_all_trials(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, read = pipeline(), list[Path]()
    for stage in ("generate", "label", "probe", "select"):
        run.run(stage)

    def counted(path: Path, layers: list[str] | None = None) -> Any:
        read.append(path)
        return load_vectors(path, layers)

    monkeypatch.setattr(vectors, "load_vectors", counted)
    run.run("tune")
    assert len(read) == 1


@pytest.mark.parametrize("alpha", ["0", "-1"])
def test_a_search_needs_an_alpha_to_begin_with(settings_with: Compose, alpha: str) -> None:
    with pytest.raises(ConfigError, match=r"alpha=auto begins at model\.steering\.alpha"):
        check_stage(settings_with("alpha=auto", f"model.steering.alpha={alpha}"))
