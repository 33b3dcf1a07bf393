"""The bench's strengths: tried on tuning prompts and seeds, by the labeler; the chosen one steers."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.compose import to_settings
from icm_pipeline.config.conf_folder import conf_path, register_schema
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.help_page import choices_of
from icm_pipeline.config.schema import Settings
from icm_pipeline.evaluation import judging
from icm_pipeline.generation.jobs import evaluation_jobs, probe_jobs, strength_jobs, tuning_jobs
from icm_pipeline.methods.registry import check_strength, method_named
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.table import BENCHED, stages_of
from icm_pipeline.planning.plan import Plan
from icm_pipeline.results.bench import ExplicitPrompts, StrengthChoice, TriedStrength, best_strength
from icm_pipeline.results.steering import Steering
from icm_pipeline.stages import image_sets, strength, ways
from icm_pipeline.stages.ways import by_prompt
from icm_pipeline.store.artifacts import Artifact, ArtifactError
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.results import as_artifact
from tests.helpers.settings import TINY

Compose = Callable[..., Settings]
SIZE = {"tuning_prompts": 2, "tuning_images": 2, "named_prompts": 2, "named_images": 1}
BENCH = (
    *TINY, "bench.included=true", "bench.clip_i=0", "method.strengths=[2.0,6.0]", "compute.batch_size=16",
    *(f"bench.sizes.full.{name}={value}" for name, value in SIZE.items()),
)  # fmt: skip


class Brightness:
    """Says woman of a picture that is brighter than another one."""

    def label(self, images: Sequence[Any], questions: dict[str, Any]) -> dict[str, np.ndarray]:
        bright = np.array([np.asarray(image).mean() > 100 for image in images])
        return {name: np.stack([bright, ~bright], axis=1).astype(float) for name in questions}


@pytest.fixture(scope="module")
def pipeline_in(settings_with: Compose, models: ModelCache) -> Callable[..., Pipeline]:
    """Give a function from an outputs folder and words to a pipeline of a bench of a few images."""
    return lambda outputs, *words: Pipeline(
        settings_with(*BENCH, f"paths.outputs={outputs}", *words), [], NoTracker(), models=models
    )


@pytest.fixture(scope="module")
def benched(pipeline_in: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A pipeline that has run every stage of a bench but the report."""
    run = pipeline_in(tmp_path_factory.mktemp("benched"))
    for stage in stages_of(run.settings)[:-1]:
        run.run(stage)
    return run


def found(pipeline: Pipeline, stage: str) -> Artifact:
    artifact = pipeline.find(stage)
    assert artifact is not None
    return artifact


def table(artifact: Artifact) -> list[dict[str, str]]:
    with artifact.path("images.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pictures(artifact: Artifact) -> dict[str, bytes]:
    return {row["id"]: artifact.path(row["path"]).read_bytes() for row in table(artifact)}


def tried(value: float, fd: float | None, clip_i: float) -> TriedStrength:
    return TriedStrength(value, fd, clip_i, None)


def test_of_strengths_that_keep_the_budget_the_fairest_is_chosen_and_of_equals_the_gentlest() -> None:
    front = [tried(1, 0.4, 0.99), tried(2, 0.2, 0.95), tried(3, 0.2, 0.92), tried(4, 0.1, 0.85), tried(5, None, 0.97)]
    assert best_strength(front, 0.9) == (front[1], True)
    assert best_strength(front, 0.85) == (front[3], True)


def test_where_no_strength_keeps_the_budget_the_one_that_keeps_most_is_chosen_and_told() -> None:
    front = [tried(1, 0.4, 0.8), tried(2, 0.2, 0.7)]
    assert best_strength(front, 0.9) == (front[0], False)


def test_where_nothing_has_an_fd_the_gentlest_is_chosen_and_the_budget_is_about_clip_i_alone() -> None:
    blind = [tried(1, None, 0.97), tried(2, None, 0.92), tried(3, None, 0.8)]
    assert best_strength(blind, 0.9) == (blind[0], True)
    assert best_strength(blind, 0.98) == (blind[0], False)


@pytest.mark.parametrize(("unseen", "has_fd"), [([0], True), ([0, 1], False)])
def test_a_tuning_prompt_that_the_labeler_cannot_see_at_one_strength_is_left_out_of_all(
    benched: Pipeline, tmp_path: Path, pipeline_in: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, unseen: list[int], has_fd: bool,
) -> None:  # fmt: skip
    jobs = by_prompt(method_named("icm"), strength_jobs(benched.settings))
    num, prompts = len(jobs), [job.prompt_index for job in jobs]
    in_turns = [prompts[:place].count(prompt) % 2 for place, prompt in enumerate(prompts)]
    shown = np.tile(np.eye(2)[in_turns], (3, 1, 1))
    shown[1, np.isin(prompts, unseen)] = np.nan  # the first strength
    shown[0, np.array(prompts) == 0] = [1.0, 0.0]  # unsteered: would count as 0.71
    embedded = np.ones((3 * num, 4))
    monkeypatch.setattr(strength, "_judged", lambda context: (shown.reshape(3 * num, 2), embedded))
    shutil.copytree(benched.settings.paths.outputs, tmp_path / "outputs")
    run = pipeline_in(tmp_path / "outputs", "bench.clip_i=0.9")
    with caplog.at_level("WARNING"):
        run.run("strength")
    choice = StrengthChoice.read(found(run, "strength"))
    assert [choice.fd_unsteered, *(each.fd for each in choice.tried)] == ([0.0] * 3 if has_fd else [None] * 3)
    assert choice.within_budget
    assert f"FD is without {len(unseen)} of 2 tuning prompts" in caplog.text
    assert ("chosen by CLIP-I alone" in caplog.text) == (not has_fd)


@pytest.mark.parametrize(
    ("fds", "is_inside", "is_old"),
    [
        ((0.5, 0.4, 0.2), True, False), ((0.5, 0.4, 0.2), False, False), ((0.5, 0.4, None), True, True),
        ((None, 0.4, 0.2), True, True), ((None, None, None), True, False), ((None, None, None), False, True),
    ],
)  # fmt: skip
def test_a_choice_that_counted_a_prompt_that_was_not_seen_is_refused_and_any_other_is_read(
    tmp_path: Path, settings_with: Compose, fds: tuple[float | None, ...], is_inside: bool, is_old: bool
) -> None:
    values = [tried(1, fds[1], 0.95), tried(2, fds[2], 0.8)]
    StrengthChoice("alpha", 1, 0.9, is_inside, fds[0], 4, 2, values).write(tmp_path)
    artifact = as_artifact(tmp_path)
    if not is_old:
        assert StrengthChoice.read(artifact).tried == values
        return
    for read in (StrengthChoice.read, lambda each: strength.check(settings_with(), each)):
        with pytest.raises(ArtifactError, match=r"strength\.json was chosen when .* Run it again with force=true"):
            read(artifact)


def test_the_strength_that_was_chosen_steers_as_if_it_had_been_given(
    benched: Pipeline, pipeline_in: Callable[..., Pipeline]
) -> None:
    choice, steering = StrengthChoice.read(found(benched, "strength")), Steering.read(found(benched, "steer"))
    assert [each.value for each in choice.tried] == [2.0, 6.0]
    assert choice.setting == "alpha"
    assert choice.value == min(choice.tried, key=lambda each: (each.fd, -each.clip_i)).value
    assert steering.alpha == choice.value
    given = pipeline_in(benched.settings.paths.outputs, "bench.included=false", f"alpha={choice.value}")
    given.run("steer")
    assert pictures(found(given, "steer")) == pictures(found(benched, "steer"))


def test_a_front_is_of_prompts_and_seeds_that_nothing_else_uses_with_options_by_quotas(benched: Pipeline) -> None:
    settings = benched.settings
    jobs = strength_jobs(settings)
    others = [*evaluation_jobs(settings), *probe_jobs(settings), *tuning_jobs(settings, 300)]
    assert {job.seed for job in jobs}.isdisjoint(job.seed for job in others)
    assert {job.prompt for job in jobs}.isdisjoint(settings.attribute.evaluation_prompts)
    rows = table(found(benched, "strength"))
    assert len(rows) == 3 * len(jobs) == 12
    for prompt in {row["prompt"] for row in rows}:
        own = [row["option"] for row in rows if row["prompt"] == prompt and row["id"].startswith("strength_01")]
        assert sorted(own) == ["man", "woman"]
    assert {row["option"] for row in rows if row["id"].startswith("unsteered")} == {""}
    by_seed = {(row["seed"], row["id"].rpartition("-")[0]) for row in rows}
    assert len(by_seed) == 12 and len({seed for seed, _ in by_seed}) == 4


def test_the_labeler_judges_the_front_and_the_evaluating_judge_is_not_asked(
    benched: Pipeline, tmp_path: Path, pipeline_in: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(config: Any, setting: str) -> Brightness:
        asked.append(setting)
        return Brightness()

    monkeypatch.setattr(judging, "load_labeler", load)
    words = ("labeler.device=cpu", "labeler.batch_size=4")  # not the encoder of CLIP-I, which would be asked instead
    shutil.copytree(benched.settings.paths.outputs, tmp_path / "outputs")
    run = pipeline_in(tmp_path / "outputs", *words)
    shutil.rmtree(run.keys.folder("strength"))
    run.run("strength")
    assert asked == ["labeler"]


def test_a_stopped_trial_of_strengths_goes_on_and_makes_nothing_twice(
    benched: Pipeline, pipeline_in: Callable[..., Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = tmp_path / "outputs"
    shutil.copytree(benched.settings.paths.outputs, outputs)
    run, made, real = pipeline_in(outputs, "generate.shard_size=4"), list[int](), ways.changed
    shutil.rmtree(run.keys.folder("strength"))

    def stopping(backbone: Any, method: Any, inputs: Any, jobs: list[Any], *rest: Any) -> Any:
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(len(jobs))
        return real(backbone, method, inputs, jobs, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ways, "changed", stopping)
        run.run("strength")
    assert run.find("strength") is None
    plan = Plan()
    plan.add(run.settings, [])
    kept = plan.items["strength", run.keys.key("strength")].kept
    again = list[int]()

    def counted(backbone: Any, method: Any, inputs: Any, jobs: list[Any], *rest: Any) -> Any:
        again.append(len(jobs))
        return real(backbone, method, inputs, jobs, *rest)

    monkeypatch.setattr(ways, "changed", counted)
    run.run("strength")
    assert kept == 8  # the unsteered and one strength
    assert (made, again) == ([4], [4])
    assert found(run, "strength").path("strength.json").read_bytes() == (
        found(benched, "strength").path("strength.json").read_bytes()
    )


def test_prompts_that_name_an_option_are_steered_to_another_and_the_judge_says_what_they_keep(
    benched: Pipeline,
) -> None:
    told, rows = ExplicitPrompts.read(found(benched, "explicit")), table(found(benched, "explicit"))
    assert told.num_images == 2
    assert 0 <= told.kept <= told.kept_unsteered <= 1
    assert told.seconds is not None and told.seconds_unsteered is not None
    pushed = {row["prompt"]: row["option"] for row in rows if row["id"].startswith("changed")}
    assert all(("female" in prompt) == (option == "man") for prompt, option in pushed.items())


def test_ways_take_turns_in_equal_batches_after_one_of_each_that_is_not_timed_and_that_changes_no_image(
    benched: Pipeline, pipeline_in: Callable[..., Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(benched.settings.paths.outputs, tmp_path / "outputs")
    run, made = pipeline_in(tmp_path / "outputs", "generate.shard_size=1"), list[str]()
    run.settings = replace(run.settings, compute=replace(run.settings.compute, batch_size=1, grow_batch=True))
    shutil.rmtree(run.keys.folder("explicit"))
    real = ways.denoise, image_sets.denoise

    def counted(number: int) -> Callable[..., Any]:
        def denoise(backbone: Any, jobs: list[Any]) -> Any:
            made.append(f"{jobs[0].image_id.replace('changed', 'C').replace('unsteered', 'U')} of {len(jobs)}")
            if len(made) == 5 and not is_again:
                raise KeyboardInterrupt
            return real[number](backbone, jobs)

        return denoise

    is_again = False
    monkeypatch.setattr(ways, "denoise", counted(0))
    monkeypatch.setattr(image_sets, "denoise", counted(1))
    with pytest.raises(KeyboardInterrupt):
        run.run("explicit")
    first = [name.split("-")[0] for name in made]
    assert first == ["U", "C", "U", "C", "C"]
    is_again = True
    made.clear()
    run.run("explicit")  # the first pair is kept
    assert [name.split("-")[0] for name in made] == ["U", "C", "C", "U"]
    assert all(name.endswith("of 1") for name in made)
    told = ExplicitPrompts.read(found(run, "explicit"))
    assert told.more is not None and len(told.more) == 1
    assert told.kept == ExplicitPrompts.read(found(benched, "explicit")).kept
    assert pictures(found(run, "explicit")).keys() == pictures(found(benched, "explicit")).keys()


def test_without_a_bench_nothing_of_it_runs_and_with_one_the_strength_is_in_the_keys(settings_with: Compose) -> None:
    assert not set(BENCHED) & set(stages_of(settings_with()))
    on = settings_with("bench.included=true")
    assert set(BENCHED) <= set(stages_of(on))
    assert set(Keys(on).parents("steer")) == {"probe", "select", "strength"}
    assert set(BENCHED) & set(stages_of(settings_with("bench.included=true", "method.strength=null"))) == {"explicit"}

    def key(stage: str, *words: str) -> str:
        return Keys(settings_with("bench.included=true", *words)).key(stage)

    for words in (["method.strengths=[1.0]"], ["bench.clip_i=0.8"], ["bench.sizes.full.tuning_images=3"]):
        assert key("strength") != key("strength", *words)
        assert key("steer") != key("steer", *words)
    for words in (["alpha=9"], ["bench.sizes.quick.tuning_images=3"], ["judge.path=another"]):  # alpha is chosen
        assert key("steer") == key("steer", *words)
        assert key("strength") == key("strength", *words)
    assert key("explicit") != key("explicit", "judge.path=another")
    midsteer = ("method.name=midsteer", "method.strength=params.beta")
    assert key("steer", *midsteer, "method.params.beta=1") == key("steer", *midsteer, "method.params.beta=2")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method.strength=params.beta"], "params.beta is nothing that method=icm reads .*alpha; null"),
        (["method.name=uce"], "method.strength=alpha is nothing that method=uce reads"),
        (["method.name=uce", "method.strength=params.ridge"], r"method\.params\.ridge changes what method=uce learns"),
        (["method.strengths=[]"], r"method\.strengths=\[\] must be the different values of alpha"),
        (["method.strengths=[1.0,1.0]"], "must be the different values"),
        (["method.strengths=[1.0,nan]"], r"method\.strengths=\[1\.0, nan\] must be finite numbers"),
        (["method.strengths=[inf]"], "must be finite numbers"),
        (["alpha=auto"], "alpha=auto searches each option's alpha, and the bench chooses one"),
        (["method.assignment=least_change"], "least_change steers by what images show"),
        (["audit.included=true"], "run one without the other"),
    ],
)
def test_a_strength_that_cannot_be_chosen_is_refused(settings_with: Compose, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_stage(settings_with("bench.included=true", *words))
    if "audit.included=true" not in words:
        check_stage(settings_with(*words))


def test_a_method_without_a_strength_has_no_trial_of_it(settings_with: Compose) -> None:
    with pytest.raises(ConfigError, match="method=none has no strength"):
        check_stage(settings_with("stage=strength", "method.name=none", "method.strength=null"))


@pytest.mark.parametrize("choice", choices_of("method"))
def test_every_shipped_method_joins_the_bench_and_says_what_it_asks_for(choice: str) -> None:
    register_schema()
    with initialize_config_dir(str(conf_path()), version_base="1.3"):
        settings = to_settings(compose("config", overrides=["experiment=bench", f"method={choice}"]))
    if settings.searched is not None:
        check_strength(settings)
    check_stage(settings)
    assert method_named(settings.method.name).asks_for


def test_all_images_of_a_prompt_are_tried_in_one_batch_where_the_method_needs_that(
    settings_with: Compose, tmp_path: Path, models: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*BENCH, f"paths.outputs={tmp_path / 'outputs'}", "compute.batch_size=3", "method.name=h_distribution",
             "method.strengths=[0.1]", "generate.images_per_prompt=3")  # fmt: skip
    run, batches, real = Pipeline(settings_with(*words), [], NoTracker(), models=models), list[Any](), ways.changed

    def counted(backbone: Any, method: Any, inputs: Any, jobs: list[Any], *rest: Any) -> Any:
        batches.append([job.prompt_index for job in jobs])
        return real(backbone, method, inputs, jobs, *rest)

    monkeypatch.setattr(ways, "changed", counted)
    for stage in stages_of(run.settings):
        run.run(stage)
        if stage == "strength":
            break
    assert batches == [[0, 0], [1, 1]]
    front = json.loads(found(run, "strength").path("strength.json").read_text())
    assert front["tried"][0]["obeyed"] is None


def test_the_evaluation_images_are_made_by_the_same_function_as_the_trials() -> None:
    assert ways.changed is image_sets.changed
