"""The steer stage: its images are those of the shift that the settings describe, and its files say what was done."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from icm_pipeline.backbones.base import Backbone
from icm_pipeline.backbones.loaded import ModelCache
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job, evaluation_jobs
from icm_pipeline.generation.sampling import Sample, decode, denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.readers import Reader, save_readers
from icm_pipeline.methods.registry import method_named
from icm_pipeline.methods.shift import Shift
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors, load_vectors
from icm_pipeline.pipeline.stage import StageContext
from icm_pipeline.results.scores import Selection
from icm_pipeline.stages import image_sets, steer
from icm_pipeline.store.artifacts import Artifact
from tests.helpers.models import NUM_STEPS
from tests.helpers.results import as_artifact

Compose = Callable[..., Settings]
LAYERS = [f"mid_block.attentions.0.transformer_blocks.0.attn{number}" for number in (1, 2)]
OPTIONS = ("woman", "man")
LEVELS = (0.99, 0.8, 0.5, 0.2)
Steer = Callable[..., Path]


def vectors_named(direction: str) -> SteeringVectors:
    """Return random vectors of each name's own, which differ from step to step and from layer to layer in length."""
    generator = torch.Generator().manual_seed(["probe", "mean_difference", "pattern"].index(direction))
    drawn = {layer: torch.randn(NUM_STEPS, 2, 64, generator=generator) for layer in LAYERS}
    return SteeringVectors(
        directions={layer: torch.nn.functional.normalize(x, dim=-1) for layer, x in drawn.items()},
        mean_norms={layer: torch.tensor([0.5, 1.0, 2.0, 3.0]) for layer in LAYERS},
        steps=tuple(range(NUM_STEPS)), noise_levels=LEVELS, options=OPTIONS, model="random", attribute="gender",
    )  # fmt: skip


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("parents")
    names = [f"vectors-{name}.safetensors" for name in ("probe", "mean_difference", "pattern")]
    for name in names:
        vectors_named(name.split("-")[1].split(".")[0]).save(folder / name)
    Selection(LAYERS[:1], "top", "self_attention", []).write(folder)
    artifact = as_artifact(folder)
    return {"probe": artifact, "select": artifact}


@pytest.fixture
def given(settings_with: Compose, random_pipeline_folder: Path) -> Compose:
    """Give a function from words to settings that draw four small pictures with the random pipeline."""
    fixed = (
        f"model.path={random_pipeline_folder}", f"model.num_steps={NUM_STEPS}", "model.guidance_scale=3",
        "model.scheduler=null", "evaluate.images_per_prompt=1", "method.alpha_unit=relative", "alpha=20",
        "method.vector=per_step", "method.norm_preserving=false", "generate.reuse_prefix=false",
    )  # fmt: skip
    return lambda *words: settings_with(*fixed, *words)


@pytest.fixture
def made(
    given: Compose,
    parents: dict[str, Artifact],
    models: ModelCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Steer:
    """Give a function that runs the stage and returns its folder, with the latents before decoding beside the rest."""

    def ran(*words: str) -> Path:
        folder = tmp_path / f"made-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()

        def noting(backbone: Backbone, jobs: list[Job], latents: Tensor) -> list[Sample]:
            torch.save(latents.clone(), folder / "latents.pt")
            return decode(backbone, jobs, latents)

        monkeypatch.setattr(image_sets, "decode", noting)
        steer.run(StageContext(given(*words), parents, folder, models=models))
        return folder

    return ran


def latents_of(folder: Path) -> Tensor:
    latents: Tensor = torch.load(folder / "latents.pt", weights_only=True)
    return latents


def options_of(folder: Path) -> list[str]:
    with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
        return [row["option"] for row in csv.DictReader(file)]


def expected_latents(backbone: Backbone, jobs: list[Job], shift: Shift) -> Tensor:
    with hooked(backbone, LAYERS[:1], shift, len(jobs)):
        return denoise(backbone, jobs)


@pytest.mark.parametrize(
    ("words", "direction", "averaged", "alpha", "how"),
    [
        ([], "probe", False, 20.0, {}),
        (["alpha=-2.5"], "probe", False, -2.5, {}),
        (["method.direction=mean_difference"], "mean_difference", False, 20.0, {}),
        (["method.direction=pattern"], "pattern", False, 20.0, {}),
        (["method.vector=mean"], "probe", True, 20.0, {}),
        (["method.alpha_unit=activation"], "probe", False, 20.0, {"alpha_unit": "activation"}),
        (["method.first_step=2"], "probe", False, 20.0, {"first_step": 2}),
        (["method.last_step=0"], "probe", False, 20.0, {"last_step": 0}),
        (["method.norm_preserving=true"], "probe", False, 20.0, {"norm_preserving": True}),
    ],
)
def test_the_images_are_those_of_the_shift_that_the_settings_describe(
    made: Steer, given: Compose, backbone: Backbone, words: list[str], direction: str, averaged: bool, alpha: float,
    how: dict[str, Any],
) -> None:  # fmt: skip
    folder, jobs = made(*words), evaluation_jobs(given(*words))
    assigned = [OPTIONS.index(option) for option in options_of(folder)]
    vectors = vectors_named(direction).averaged() if averaged else vectors_named(direction)
    found = latents_of(folder)
    shift = Shift(vectors, assigned, Strength(alpha, **{"alpha_unit": "relative", **how}))
    torch.testing.assert_close(found, expected_latents(backbone, jobs, shift), rtol=0, atol=1e-4)
    if words:  # and no other's
        usual = Shift(vectors_named("probe"), assigned, Strength(abs(alpha), "relative"))
        assert (found - expected_latents(backbone, jobs, usual)).abs().max() > 1e-2


def test_the_vectors_left_are_those_of_the_steered_layers_with_how_they_were_used(made: Steer) -> None:
    folder = made(
        "alpha=2.5", "method.alpha_unit=activation", "method.first_step=1", "method.last_step=2",
        "method.norm_preserving=true", "method.direction=pattern",
    )  # fmt: skip
    left = load_vectors(folder / "vectors.safetensors")
    assert left.strength == Strength(2.5, "activation", 1, 2, NUM_STEPS, norm_preserving=True)
    assert left.layers == LAYERS[:1]
    assert torch.equal(left.directions[LAYERS[0]], vectors_named("pattern").directions[LAYERS[0]])


def test_averaged_vectors_are_left_as_they_were_used(made: Steer) -> None:
    left = load_vectors(made("method.vector=mean") / "vectors.safetensors").directions[LAYERS[0]]
    torch.testing.assert_close(left, vectors_named("probe").averaged().directions[LAYERS[0]])


def test_what_was_done_is_told(made: Steer) -> None:
    told = json.loads((made("method.last_step=1", "method.direction=pattern") / "steering.json").read_text())
    assert (told["method"], told["alpha"], told["layers"]) == ("icm", 20.0, LAYERS[:1])
    assert (told["rule"], told["kind"], told["last_step"], told["direction"]) == ("top", "self_attention", 1, "pattern")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "steer: icm: best 1 self-attention, alpha 20"),
        (["method.name=none"], "steer: none: no steering: {"),
        (["method.name=prompt", "method.params={text: option}"], "steer: prompt: option prompt: {"),
    ],
)
def test_the_log_tells_how_images_are_steered_in_the_methods_own_words(
    made: Steer, caplog: pytest.LogCaptureFixture, words: list[str], said: str
) -> None:
    with caplog.at_level("INFO", "icm_pipeline.stages.steer"):
        made(*words)
    (line,) = [message for message in caplog.messages if message.startswith("steer: ") and "{" in message]
    assert line.startswith(said)
    assert ("alpha" in line) == (not words)


def test_method_none_steers_no_layer_and_leaves_no_vectors(made: Steer, given: Compose, backbone: Backbone) -> None:
    folder = made("method.name=none")
    torch.testing.assert_close(latents_of(folder), denoise(backbone, evaluation_jobs(given())), rtol=0, atol=1e-4)
    assert not (folder / "vectors.safetensors").exists()
    told = json.loads((folder / "steering.json").read_text())
    assert (told["alpha"], told["layers"]) == (0.0, [])


@pytest.fixture
def assigned(
    given: Compose,
    parents: dict[str, Artifact],
    models: ModelCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Give a function that returns the options of eight images of each of four prompts; the pictures are black."""

    def black(backbone: Backbone, jobs: list[Job], latents: Tensor) -> list[Sample]:
        return [Sample(job, Image.new("RGB", (16, 16))) for job in jobs]

    monkeypatch.setattr(image_sets, "denoise", lambda backbone, jobs: None)
    monkeypatch.setattr(image_sets, "decode", black)

    def options(*words: str) -> np.ndarray:
        folder = tmp_path / f"assigned-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        steer.run(StageContext(given("evaluate.images_per_prompt=8", *words), parents, folder, models=models))
        return np.array([OPTIONS.index(option) for option in options_of(folder)]).reshape(8, 4).T  # [prompt, image]

    return options


def test_quotas_give_every_prompt_the_shares_asked_for(assigned: Any) -> None:
    assert assigned("method.assignment=quota").sum(1).tolist() == [4, 4, 4, 4]
    assert assigned("method.assignment=quota", "method.target_shares=[0.25,0.75]").sum(1).tolist() == [6, 6, 6, 6]


def test_draws_of_a_batch_are_shared_by_as_many_images_as_asked_for(assigned: Any) -> None:
    for size in (2, 4):
        drawn = assigned("method.assignment=batch", f"method.draw_size={size}").reshape(4, -1, size)
        assert (drawn == drawn[..., :1]).all()
        assert (drawn != drawn[:, :1]).any()  # several draws of one prompt
        assert 0 < drawn.mean() < 1
    assert len(set(assigned("method.assignment=image").sum(1))) > 1


@pytest.mark.parametrize("how", ["quota", "image"])
def test_the_seed_decides_who_is_steered_to_what(assigned: Any, how: str) -> None:
    first, again, other, far = (assigned(f"method.assignment={how}", f"seed={seed}") for seed in (0, 0, 7, 1000))
    assert (first == again).all()
    assert (first != other).any()
    assert (first != far).any()


def test_the_vectors_left_carry_the_readers_of_a_look(
    given: Compose, parents: dict[str, Artifact], tmp_path: Path
) -> None:
    (tmp_path / "foretell").mkdir()
    reader = Reader(1, 0.8, {LAYERS[1]: torch.ones(2, 64)}, torch.zeros(2), 0.95)
    save_readers([reader], tmp_path / "foretell" / "readers.safetensors")
    foretold = {"foretell": as_artifact(tmp_path / "foretell")}
    inputs = MethodInputs(given(), {**parents, **foretold}, LAYERS[:1])
    method_named("icm").keep(inputs, tmp_path)
    left = load_vectors(tmp_path / "vectors.safetensors")
    assert [(found.step, found.layers, found.accuracy) for found in left.readers] == [(1, LAYERS[1:], 0.95)]
    assert left.layers == LAYERS[:1]
