"""The push stage: the run's own images at other layers and along other directions, and nothing else changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, evaluation_jobs, probe_jobs
from icm_pipeline.generation.sampling import Sample, decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.images.table import read_made
from icm_pipeline.localization.selection import LayerScore
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import load_vectors
from icm_pipeline.pipeline.checks import check_stage
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.effects import Pushes, arm_of
from icm_pipeline.results.scores import Selection
from icm_pipeline.results.verdicts import Verdicts
from icm_pipeline.stages import arms, push, steer
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.tracking.base import NoTracker
from tests.helpers.models import NUM_STEPS
from tests.helpers.results import as_artifact, scores
from tests.helpers.settings import TINY
from tests.stages.test_steer import LAYERS, vectors_named

Compose = Callable[..., Settings]
RANKING = [LayerScore(layer, "self_attention", 0.9 - number / 10) for number, layer in enumerate(LAYERS)]


def selection(num_layers: int, k: int) -> Selection:
    ranking = [LayerScore(f"layer {number}", "self_attention", 1 - number / 100) for number in range(num_layers)]
    others = [LayerScore(f"other {number}", "cross_attention", 1.0) for number in range(9)]
    return Selection([row.layer for row in ranking[:k]], "top", "self_attention", [*others, *ranking])


@pytest.fixture
def parents(tmp_path: Path) -> dict[str, Artifact]:
    folder = tmp_path / "parents"
    folder.mkdir()
    vectors_named("probe").save(folder / "vectors-probe.safetensors")
    scores({layer: ("self_attention", 0.9, []) for layer in LAYERS}).write(folder)
    Selection(LAYERS[:1], "top", "self_attention", RANKING).write(folder)
    return dict.fromkeys(("probe", "select"), as_artifact(folder))


@pytest.fixture
def given(settings_with: Compose, random_pipeline_folder: Path) -> Compose:
    fixed = (
        f"model.path={random_pipeline_folder}", f"model.num_steps={NUM_STEPS}", "model.guidance_scale=3",
        "model.scheduler=null", "evaluate.images_per_prompt=2", "method.alpha_unit=relative", "alpha=20",
        "generate.reuse_prefix=false", "audit.sizes.full.num_sets=2", "audit.sizes.full.images_per_set=2",
        "audit.other_subjects=[a photo of a dog]", "generate.shard_size=4",
    )  # fmt: skip
    return lambda *words: settings_with(*fixed, *words)


@pytest.fixture
def made(
    given: Compose, parents: dict[str, Artifact], models: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Path, dict[str, Tensor]]]:
    """Give a function that runs the stage and returns its folder, and the latents of every image by its id."""

    def ran(*words: str) -> tuple[Path, dict[str, Tensor]]:
        folder, latents = tmp_path / f"made-{len(list(tmp_path.iterdir()))}", dict[str, Tensor]()
        folder.mkdir()

        def noting(backbone: Backbone, jobs: list[Job], found: Tensor) -> list[Sample]:
            latents.update({job.image_id: row.clone() for job, row in zip(jobs, found, strict=True)})
            return decode(backbone, jobs, found)

        monkeypatch.setattr(arms, "decode", noting)
        push.run(StageContext(given(*words), parents, folder, models=models))
        return folder, latents

    return ran


def test_arms_push_the_runs_own_images_at_other_layers_and_along_other_directions(
    made: Any, given: Compose, backbone: Backbone
) -> None:
    folder, latents = made()
    rows, pushes = read_made(folder), Pushes.read(as_artifact(folder))
    jobs = evaluation_jobs(given())
    steered = [row.option for row in sorted(rows, key=lambda row: arm_of(row.image_id)) if row.image_id[:5] == "worst"]
    options = [list(given().attribute.options).index(option) for option in steered]
    with hooked(backbone, LAYERS[1:], Shift(vectors_named("probe"), options, Strength(20, "relative")), len(jobs)):
        expected = denoise(backbone, jobs)
    assert pushes.arms["worst"].layers == pushes.arms["layers_000"].layers == LAYERS[1:]
    torch.testing.assert_close(
        torch.stack([latents[f"worst-{job.image_id}"] for job in jobs]), expected, rtol=0, atol=1e-4
    )
    names = [name for name in latents if name.startswith("layers_000-")]
    at_random, ids = torch.stack([latents[name] for name in names]), [int(arm_of(name)[1]) for name in names]
    torch.testing.assert_close(at_random, expected[ids], rtol=0, atol=1e-4)
    own = [row for row in rows if row.image_id.startswith("direction_001-")]
    by_id = {job.image_id: job for job in jobs}
    twins = [by_id[arm_of(row.image_id)[1]] for row in own]
    assert [(row.prompt, row.seed) for row in own] == [(job.prompt, job.seed) for job in twins]
    turned = torch.stack([latents[row.image_id] for row in own])
    unsteered = denoise(backbone, twins)
    elsewhere = expected[[int(job.image_id) for job in twins]]
    assert min((turned - unsteered).abs().max(), (turned - elsewhere).abs().max()) > 1e-2


def test_options_are_those_that_the_runs_own_steering_gives(
    made: Any, given: Compose, parents: dict[str, Artifact], models: ModelCache, tmp_path: Path
) -> None:
    (tmp_path / "steer").mkdir()
    steer.run(StageContext(given(), parents, tmp_path / "steer", models=models))
    own = {row.image_id: row.option for row in read_made(tmp_path / "steer")}
    rows = [row for row in read_made(made()[0]) if arm_of(row.image_id)[0] in ("layers_000", "direction_001", "worst")]
    assert [row.option for row in rows] == [own[arm_of(row.image_id)[1]] for row in rows]
    assert len(rows) == 2 + 1 + len(own)


def test_what_should_not_change_is_made_unsteered_and_steered_with_seeds_of_its_own(made: Any, given: Compose) -> None:
    rows = read_made(made()[0])
    by_arm = {arm: [row for row in rows if arm_of(row.image_id)[0] == arm] for arm in arms_in(rows)}
    for arm in ("named", "other_subjects"):
        before, after = by_arm[arm], by_arm[f"{arm}_steered"]
        assert [(row.prompt, row.seed) for row in before] == [(row.prompt, row.seed) for row in after]
        assert {row.option for row in before} == {""}
        assert [row.option for row in after].count("man") == len(after) / 2
    named = [(" female " in row.prompt, row.option) for row in by_arm["named_steered"]]
    assert set(named) == {(True, "man"), (False, "woman")}  # each to what its prompt does not name
    assert {row.prompt for row in by_arm["other_subjects"]} == {"a photo of a dog"}
    assert sum(" female " in row.prompt for row in by_arm["named"]) == push.NAMED
    fresh = {row.seed for arm in ("named", "other_subjects") for row in by_arm[arm]}
    assert len(fresh) == 2 * push.NAMED + 2 * push.SUBJECTS
    assert fresh.isdisjoint(job.seed for job in (*evaluation_jobs(given()), *probe_jobs(given())))


def arms_in(rows: Any) -> list[str]:
    return list(dict.fromkeys(arm_of(row.image_id)[0] for row in rows))


def test_arms_that_cannot_be_are_left_out(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "named_prompts", lambda attribute: [])
    assert arms_in(read_made(made("audit.other_subjects=[]")[0])) == [
        "layers_000", "direction_000", "direction_001", "worst",
    ]  # fmt: skip


def test_least_change_makes_no_images_of_prompts_that_name_an_option(made: Any, given: Compose) -> None:
    words = ("method.assignment=least_change", "method.assignment=quota")
    least, quota = (read_made(made(word)[0]) for word in words)
    assert {"named", "named_steered"}.isdisjoint(arms_in(least))
    assert {"named", "named_steered", "other_subjects"} < set(arms_in(quota))
    planned = [push.work(given(word), None).num_images for word in words]
    assert planned[1] - planned[0] == len(quota) - len(least) > 0
    assert planned[1] == len(quota) + 2  # of the second set: two layers have but one other


def test_least_change_is_held_against_the_selected_layers_with_the_same_quotas(made: Any) -> None:
    rows, option_of = read_made(made("method.assignment=least_change")[0]), dict[str, dict[str, str]]()
    for row in rows:
        arm, twin = arm_of(row.image_id)
        option_of.setdefault(arm, {})[twin] = row.option
    assert option_of["selected"] == option_of["worst"]
    pushed = [own.items() for arm, own in option_of.items() if arm.startswith(("layers", "direction"))]
    assert len(pushed) == 3 and all(own <= option_of["selected"].items() for own in pushed)


def test_random_sets_are_distinct_of_the_kind_and_never_the_selected_one() -> None:
    found = push.random_sets(selection(12, 3), 20, np.random.default_rng(0))
    assert len({frozenset(layers) for layers in found}) == 20
    assert all(len(set(layers)) == 3 and all(layer.startswith("layer") for layer in layers) for layers in found)
    assert frozenset(selection(12, 3).layers) not in {frozenset(layers) for layers in found}
    assert push.random_sets(selection(12, 3), 20, np.random.default_rng(1)) != found


def test_all_sets_are_pushed_where_there_are_fewer() -> None:
    found = push.random_sets(selection(4, 3), 20, np.random.default_rng(0))
    assert sorted(map(sorted, found)) == [
        ["layer 0", "layer 1", "layer 3"], ["layer 0", "layer 2", "layer 3"], ["layer 1", "layer 2", "layer 3"]
    ]  # fmt: skip
    assert push.random_sets(selection(3, 3), 20, np.random.default_rng(0)) == []
    assert push.worst_layers(selection(3, 3)) == []


def test_random_directions_are_unit_vectors_opposite_for_two_options_and_one_for_all_steps() -> None:
    real = vectors_named("probe")
    drawn = push.random_directions(real, 3)
    for layer, directions in drawn.directions.items():
        assert directions.shape == real.directions[layer].shape
        torch.testing.assert_close(directions.norm(dim=-1), torch.ones(directions.shape[:-1]))
        assert torch.equal(directions[:, 0], -directions[:, 1])
        assert torch.equal(directions[0], directions[-1])
    assert torch.equal(push.random_directions(real, 3).directions[LAYERS[0]], drawn.directions[LAYERS[0]])
    assert not torch.equal(push.random_directions(real, 4).directions[LAYERS[0]], drawn.directions[LAYERS[0]])
    assert drawn.mean_norms is real.mean_norms


def test_the_vectors_pushed_are_those_that_the_settings_choose(
    given: Compose, parents: dict[str, Artifact], tmp_path: Path
) -> None:
    context = StageContext(given("method.vector=mean"), parents, tmp_path)
    averaged = load_vectors(parents["probe"].path("vectors-probe.safetensors")).averaged()
    assert torch.equal(arms.pushed_vectors(context).directions[LAYERS[1]], averaged.directions[LAYERS[1]])


@pytest.mark.parametrize(
    "words",
    [
        ["audit.included=true"], ["layers.rule=causal"], ["stage=push"], ["stage=causal"],
        ["audit.included=true", "audit.claims=[changes]"],
    ],
)  # fmt: skip
def test_other_methods_are_refused_before_anything_is_made(settings_with: Compose, words: list[str]) -> None:
    with pytest.raises(ConfigError, match="method=none"):
        check_stage(settings_with("method.name=none", *words, "model.path=embedded:tiny"))


def test_other_methods_are_audited_for_claims_that_push_nothing(settings_with: Compose) -> None:
    words = ("method.name=none", "audit.included=true", "model.path=embedded:tiny")
    check_stage(settings_with(*words, "audit.claims=[separability,kinds,implicit,stability,judge,confirmation]"))


@pytest.mark.slow
def test_the_claims_about_pushing_are_made_from_the_embedded_models_own_images(
    settings_with: Compose, tmp_path: Path, models: ModelCache
) -> None:
    small = (
        "audit.included=true", "audit.sizes.full.num_sets=2", "audit.sizes.full.images_per_set=4",
        "audit.sizes.full.layer_images=4", "audit.sizes.full.num_resamples=20", "audit.sizes.full.named_images=2",
        "audit.claims=[causality,changes,judge,confirmation]", f"paths.outputs={tmp_path}",
    )  # fmt: skip
    run = Pipeline(settings_with(*TINY, *small), [], NoTracker(), models=models)
    run.run("all")
    audit = run.find("audit")
    assert audit is not None
    told = Verdicts.read(audit)
    groups = {claim.finding.claim.split(".")[0] for claim in told.claims}
    assert groups == {"causality", "changes", "judge", "confirmation"}
    assert "changes.other_subjects" in told.left_out  # so few steps may move nothing: then accuracies are left out too
    assert told.left_out.keys() <= {"changes.other_subjects", "causality.accuracy", "causality.accuracy_all_kinds"}
    assert {"causality-sets.png", "causality-layers.png", "changes-drift.png"} <= set(audit.manifest.files)
