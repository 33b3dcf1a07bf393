"""A plan: its sizes are those of the files that a run writes, what is there is done, what jobs share counts once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from icm_pipeline.config.schema import Settings
from icm_pipeline.machine.devices import device_name
from icm_pipeline.methods.registry import method_named
from icm_pipeline.pipeline.keys import Keys
from icm_pipeline.pipeline.run import Pipeline
from icm_pipeline.pipeline.table import STAGES
from icm_pipeline.pipeline.workload import Workload, passes_before, passes_per_run
from icm_pipeline.planning.methods import planned_methods
from icm_pipeline.planning.plan import PREFIXES, Item, Plan, most_disk
from icm_pipeline.planning.tables import print_plan
from icm_pipeline.results.bench import ExplicitPrompts
from icm_pipeline.results.steering import FitCost
from icm_pipeline.store.artifacts import Artifact
from icm_pipeline.store.partial import partial_of
from icm_pipeline.text import time_text
from icm_pipeline.tracking.base import NoTracker
from icm_pipeline.zoo.paths import ZOO
from tests.helpers.results import write_artifact

Compose = Callable[..., Settings]
NUM_PROBE_IMAGES, NUM_EVALUATION_IMAGES, NUM_STEPS = 6, 4, 4
WORDS = (
    "model.name=random", f"model.num_steps={NUM_STEPS}", "model.guidance_scale=3", "compute.batch_size=2", "layers.k=1",
    "generate.images_per_prompt=3", "generate.shard_size=2", "evaluate.images_per_prompt=1", "method.first_step=2",
    "attribute.probe_subjects=[person]", "attribute.probe_templates=['a photo of a {}', 'a face of a {}']",
)  # fmt: skip


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def made(outputs: Path, random_pipeline_folder: Path, settings_with: Compose) -> Settings:
    """Make the probe dataset and the originals of a small random model, and return the settings."""
    judges = [f"{name}.path={ZOO / 'tiny-clip'}" for name in ("labeler", "evaluate.clip")]
    words = [*WORDS, *judges, f"judge.path={ZOO / 'tiny-classifier'}", f"model.path={random_pipeline_folder}"]
    settings = settings_with(*words, f"paths.outputs={outputs}")
    pipeline = Pipeline(settings, [], NoTracker())
    pipeline.run("generate")
    pipeline.run("originals")
    return settings


def artifact(settings: Settings, stage: str) -> Artifact:
    found = Pipeline(settings, [], NoTracker()).find(stage)
    assert found is not None
    return found


def states(plan: Plan) -> dict[str, bool]:
    return {stage: item.done for (stage, _), item in plan.items.items()}


def planned(*jobs: Settings) -> Plan:
    plan = Plan()
    for number, settings in enumerate(jobs):
        plan.add(settings, [f"job={number}"])
    return plan


def item_of(plan: Plan, stage: str) -> Item:
    (found,) = [item for (name, _), item in plan.items.items() if name == stage]
    return found


def elsewhere(settings: Settings, folder: Path) -> Settings:
    return replace(settings, paths=replace(settings.paths, outputs=str(folder)))


def values_in(path: Path) -> int:
    with safe_open(path, framework="np") as file:
        return sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118


def tensor_bytes(path: Path) -> int:
    with safe_open(path, framework="np") as file:
        return sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118


def test_activations_take_what_the_plan_said(made: Settings, tmp_path: Path) -> None:
    folder = artifact(made, "generate").folder
    files = list(folder.glob("activations/*.safetensors"))
    numbers = 0
    for path in files:
        with safe_open(path, framework="np") as file:
            numbers += file.get_tensor("pooled").size
    work = item_of(planned(elsewhere(made, tmp_path)), "generate").work
    assert (work.values, work.stored) == (numbers, sum(tensor_bytes(path) for path in files))
    whole = item_of(
        planned(elsewhere(replace(made, generate=replace(made.generate, store="float32")), tmp_path)), "generate"
    )
    assert whole.work.stored == 4 * numbers
    assert (work.num_images, work.passes) == (NUM_PROBE_IMAGES, NUM_PROBE_IMAGES * NUM_STEPS)
    assert work.device_memory == 2 * 4 * numbers * made.compute.batch_size // NUM_PROBE_IMAGES


def test_first_steps_take_what_the_plan_said(made: Settings, tmp_path: Path) -> None:
    folder = Pipeline(made, [], NoTracker()).keys.prefix_folder()
    assert folder is not None
    numbers = sum(values_in(path) for path in folder.glob("*.safetensors"))
    assert item_of(planned(elsewhere(made, tmp_path)), PREFIXES).work.stored == 4 * numbers


def test_probes_take_what_the_plan_said(settings_with: Compose, tmp_path: Path) -> None:
    import numpy as np
    import torch
    from safetensors.numpy import load_file

    from icm_pipeline.config.choices import DIRECTIONS
    from icm_pipeline.localization.probes import fit_layer, split_samples
    from icm_pipeline.methods.vectors import SteeringVectors

    settings = settings_with("model.num_steps=2")
    options = settings.attribute.options | {"child": ["a child"]}
    settings = replace(settings, attribute=replace(settings.attribute, options=options))
    outline = _outline({"self_attention": [[3, 1]]})
    rng = np.random.default_rng(0)
    labels = np.arange(30) % len(settings.attribute.options)
    activations = rng.normal(size=(30, 2, 3)).astype(np.float32)
    probes = fit_layer(activations, labels, split_samples(labels, 0.2, rng), 1.0, 100)
    numbers = probes.weights.size + probes.bias.size
    for direction in DIRECTIONS:
        vectors = SteeringVectors(
            directions={"a": torch.from_numpy(probes.directions[direction]).float()},
            mean_norms={"a": torch.from_numpy(probes.mean_norm).float()},
            steps=(0, 1), noise_levels=(1.0, 0.5), options=tuple(settings.attribute.options), model="m", attribute="a",
        )  # fmt: skip
        vectors.save(tmp_path / "vectors.safetensors")
        numbers += sum(values.size for values in load_file(tmp_path / "vectors.safetensors").values())
    assert STAGES["probe"].work(settings, outline).stored == 4 * numbers


def test_what_is_there_is_done_and_costs_nothing(made: Settings) -> None:
    plan = planned(made)
    done = states(plan)
    assert {stage for stage, there in done.items() if there} == {"generate", "originals", PREFIXES}
    assert plan.jobs[0].makes == ("label", "probe", "select", "steer", "evaluate", "report")
    assert item_of(plan, "generate").work == Workload()


def test_steering_leaves_out_the_first_steps_that_are_there(made: Settings, tmp_path: Path) -> None:
    rest = NUM_EVALUATION_IMAGES * (NUM_STEPS - made.method.first_step)
    assert item_of(planned(made), "steer").work.passes == rest
    afresh = planned(elsewhere(made, tmp_path))
    assert item_of(afresh, "steer").work.passes == rest
    assert item_of(afresh, "originals").work.passes == NUM_EVALUATION_IMAGES * NUM_STEPS
    unshared = replace(made, generate=replace(made.generate, reuse_prefix=False))
    assert item_of(planned(unshared), "steer").work.passes == NUM_EVALUATION_IMAGES * NUM_STEPS


def test_the_first_job_with_another_first_step_keeps_it_for_the_others(made: Settings) -> None:
    later = replace(made, method=replace(made.method, first_step=3))
    plan = planned(later, replace(later, alpha=2.0))
    passes = [item.work.passes for (stage, _), item in plan.items.items() if stage == "steer"]
    assert passes == [NUM_EVALUATION_IMAGES * NUM_STEPS, NUM_EVALUATION_IMAGES]


def test_time_is_measured_by_what_was_made_here(made: Settings) -> None:
    longer = replace(made, model=replace(made.model, num_steps=2 * NUM_STEPS))
    plan = planned(longer)
    for stage in ("generate", "originals"):
        seconds = artifact(made, stage).manifest.seconds
        assert item_of(plan, stage).seconds == pytest.approx(2 * seconds)
    assert item_of(plan, "steer").seconds == pytest.approx(2 * artifact(made, "originals").manifest.seconds * 6 / 8)
    assert item_of(plan, "evaluate").seconds is None


def test_time_is_not_taken_from_another_model_or_dtype(made: Settings) -> None:
    unlike = {
        "compute": replace(made.compute, dtype="bfloat16"),
        "model": replace(made.model, guidance_scale=1.0),
    }
    for group, values in unlike.items():
        assert item_of(planned(replace(made, **{group: values})), "originals").seconds is None


def test_reading_first_steps_takes_time_and_steering_only_what_must_change_takes_at_most_so_much(
    made: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    how = replace(made.method, assignment="least_change", look=2, first_step=0)
    settings = replace(made, method=how, plan=replace(made.plan, seconds_per_image=10.0))
    plan = planned(settings)
    assert item_of(plan, "assign").seconds == pytest.approx(10 * NUM_EVALUATION_IMAGES * 2 / NUM_STEPS)
    assert (item_of(plan, "steer").work_at_most, item_of(planned(made), "steer").work_at_most) == (True, False)
    print_plan(plan)
    printed = capsys.readouterr().out
    assert f"<= {NUM_EVALUATION_IMAGES} " in printed
    assert f"<= {NUM_EVALUATION_IMAGES * NUM_STEPS} " in printed


def test_the_time_that_is_given_is_believed(made: Settings) -> None:
    given = replace(made, plan=replace(made.plan, seconds_per_image=10.0), seed=1)
    assert item_of(planned(given), "generate").seconds == pytest.approx(10 * NUM_PROBE_IMAGES)


def test_pictures_are_counted_by_those_that_are_there_else_uncompressed(made: Settings, tmp_path: Path) -> None:
    sizes = [
        entry.size
        for stage in ("generate", "originals")
        for name, entry in artifact(made, stage).manifest.files.items()
        if name.startswith("images/")
    ]
    known = item_of(planned(made), "steer")
    assert known.pictures == pytest.approx(NUM_EVALUATION_IMAGES * sum(sizes) / len(sizes))
    bound = item_of(planned(elsewhere(made, tmp_path)), "originals")
    assert (bound.pictures, bound.at_most) == (NUM_EVALUATION_IMAGES * 3 * 16 * 16, True)


def test_images_of_an_interrupted_job_are_not_made_again(made: Settings, tmp_path: Path) -> None:
    settings = elsewhere(made, tmp_path)
    pipeline = Pipeline(settings, [], NoTracker())
    partial = partial_of(pipeline.keys.folder("originals"))

    class StopError(Exception): ...

    from icm_pipeline.stages import image_sets

    with pytest.MonkeyPatch.context() as patch:
        real, calls = image_sets.decode, []

        def second_fails(*args: Any) -> Any:
            calls.append(args)
            if len(calls) == 2:
                raise StopError
            return real(*args)

        patch.setattr(image_sets, "decode", second_fails)
        with pytest.raises(StopError):
            pipeline.run("originals")
    assert partial.exists()
    item = item_of(planned(settings), "originals")
    left = NUM_STEPS - made.method.first_step  # the second batch was denoised, so that its first steps are kept
    assert (item.kept, item.work.num_images, item.work.passes) == (2, 2, 2 * left)


def test_a_sweep_counts_what_its_jobs_share_once(made: Settings, tmp_path: Path) -> None:
    fresh = elsewhere(made, tmp_path)
    plan = planned(fresh, replace(fresh, alpha=2.0), replace(fresh, alpha=3.0))
    counts = {stage: sum(name == stage for name, _ in plan.items) for stage, _ in plan.items}
    assert counts == {
        "generate": 1, "label": 1, "probe": 1, "select": 1, "originals": 1, PREFIXES: 1, "steer": 3, "evaluate": 3,
        "report": 3,
    }  # fmt: skip
    assert plan.jobs[1].makes == ("steer", "evaluate", "report")
    assert plan.jobs[1].shares == ("generate", "label", "probe", "select", "originals")


def leave(settings: Settings, stage: str, record: Any) -> None:
    """Leave a stage's artifact of 1,500 bytes of tensors and a record."""
    keys = Keys(settings)
    folder = keys.folder(stage)
    folder.mkdir(parents=True)
    record.write(folder)
    (folder / "learnt.safetensors").write_bytes(bytes(1500))
    write_artifact(
        folder, stage, keys.key(stage), parents=keys.parents(stage), settings=keys.content(stage), seconds=12.0,
        device_name=device_name("cpu"),
    )  # fmt: skip


def test_jobs_of_several_methods_are_planned_with_what_each_took_here_and_asks_for(
    made: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt, beta, more = (
        replace(elsewhere(made, tmp_path), method=replace(made.method, name=name, params=params))
        for name, params in (("prompt", {"text": "option"}), ("midsteer", {"beta": 1.0}), ("midsteer", {"beta": 2.0}))
    )
    assert planned_methods(planned(beta, more)) == []  # a sweep of one method
    asked, fitted = planned_methods(planned(prompt, beta))
    first = NUM_PROBE_IMAGES + 2 * NUM_EVALUATION_IMAGES
    assert (asked.images, asked.learning, asked.more, asked.size) == (first, "0.0 min", "?", "nothing")
    assert (fitted.images, fitted.learning, fitted.size) == (NUM_EVALUATION_IMAGES, "?", "?")
    assert fitted.asks_for == method_named("midsteer").asks_for and fitted.scaled_down
    told = ExplicitPrompts(4, 1.0, 1.0, 0.75, 0.5)
    leave(beta, "fit", FitCost(90.0, 40, "cpu"))
    leave(replace(beta, seed=1), "fit", FitCost(30.0, 40, "cpu"))
    leave(beta, "explicit", told)
    leave(prompt, "explicit", told)
    assert planned_methods(planned(prompt, beta))[1].learning == "?"  # the probes that choose its layers
    leave(beta, "generate", told)
    leave(beta, "label", told)
    leave(beta, "probe", told)
    asked, fitted = planned_methods(planned(prompt, beta))
    assert (fitted.learning, fitted.more, fitted.size) == ("1.2 min", "+0.25 s", "1.5 kB")  # the median of both fits
    assert (asked.learning, asked.more, asked.size) == ("0.0 min", "+0.25 s", "nothing")
    slow = item_of(planned(replace(beta, seed=2)), "fit").seconds
    assert slow == item_of(planned(replace(more, seed=2)), "fit").seconds  # beta changes no fit
    print_plan(planned(prompt, beta))
    printed = capsys.readouterr().out
    assert "Methods; ? was not measured here before" in printed and "scaled down" in printed


def test_a_damaged_artifact_is_named(made: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = elsewhere(made, tmp_path)
    folder = Pipeline(settings, [], NoTracker()).keys.folder("generate")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    plan = planned(settings)
    print_plan(plan)
    assert "damaged" in capsys.readouterr().out
    assert not item_of(plan, "generate").done


def test_a_plan_is_printed_with_what_is_not_known(
    settings_with: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_plan(planned(settings_with("model.path=nobody/nothing", f"paths.outputs={tmp_path / 'none'}")))
    printed = capsys.readouterr().out
    assert "The layers of nobody/nothing are not known" in printed
    assert "plan.seconds_per_image" in printed
    assert not list(tmp_path.iterdir())


def test_layers_that_a_model_does_not_have_are_refused(made: Settings) -> None:
    with pytest.raises(ValueError, match=r"layers.k=99 is more than"):
        Plan().add(replace(made, layers=replace(made.layers, k=99)), [])


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("injection", r"localizers\.windows=\[1, 99\]: \d+ cross-attention layers have none of 99"),
        ("intervention", r"localizers\.windows=\[1, 99\]: 99 of \d+ cross-attention layers leave none"),
    ],
)
def test_windows_that_are_too_wide_for_a_model_are_refused_before_anything_is_planned(
    made: Settings, asked: str, reason: str
) -> None:
    plan = Plan()
    with pytest.raises(ValueError, match=reason):
        plan.add(replace(made, localizers=replace(made.localizers, windows=[1, 99], **{asked: True})), [])
    assert not plan.items and not plan.jobs
    plan.add(replace(made, localizers=replace(made.localizers, windows=[1], **{asked: True})), [])


def test_what_goes_again_counts_while_it_is_there() -> None:
    def item(stored: int, temporary: int) -> Item:
        return Item("generate", False, Workload(stored=stored, temporary=temporary))

    assert most_disk([item(10, 10), item(3, 0)]) == 20
    assert most_disk([item(10, 2), item(30, 0)]) == 40
    assert [item(10, 2).disk, item(30, 0).disk] == [10, 30]


@pytest.mark.parametrize(("scheduler", "calls", "before"), [(None, 10, 3), ("heun", 19, 5), ("pndm", 11, 4)])
def test_passes_are_the_calls_that_the_scheduler_makes(scheduler: str | None, calls: int, before: int) -> None:
    from icm_pipeline.backbones.schedulers import SCHEDULERS
    from icm_pipeline.hooks.clock import noise_levels, step_numbers

    assert (passes_per_run(10, scheduler), passes_before(3, scheduler)) == (calls, before)
    if scheduler is not None:
        import diffusers

        more = {"skip_prk_steps": True} if scheduler == "pndm" else {}
        made = getattr(diffusers, SCHEDULERS[scheduler])(**more)
        made.set_timesteps(10)
        numbers = step_numbers(noise_levels(made))
        assert (len(numbers), sum(number < 3 for number in numbers)) == (calls, before)


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (75, "75 s"), (600, "10 min"), (7200, "2.0 h")])
def test_a_time_is_told_in_its_unit(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def _outline(widths: dict[str, list[list[int]]]) -> Any:
    from icm_pipeline.config.models import OutlineConfig

    return OutlineConfig(widths=widths, size=16, channels=4, factor=2, rows=1, guided_above=1.0)
