"""Vectors from pairs of prompts: the planted difference is found without a judge, whatever else the prompts say."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icm_pipeline import load_vectors
from icm_pipeline.backbones.base import Backbone
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.recording import Recording
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.fitting import fit_vectors
from icm_pipeline.methods.icm import VECTORS
from icm_pipeline.methods.learnt import directions_and_norm
from icm_pipeline.methods.pairs import METHOD, chosen
from icm_pipeline.methods.prompt_pairs import directions_of
from icm_pipeline.methods.vectors import SteeringVectors
from icm_pipeline.pipeline.keys import Keys
from tests.helpers.planted_fits import KIND, LEVELS, TOLD, fit_to_prompts
from tests.helpers.results import as_artifact
from tests.helpers.running import Run, pixels

OPTIONS = ("woman", "man")
FEW = ("method=pairs", "method.params.pairs=2", "method.params.k=2")
KINDS = {"telling": "self_attention", "noise": "self_attention", "other": "feed_forward"}


def planted(num_sets: int, options: tuple[str, ...] = OPTIONS, seed: int = 0) -> tuple[list[Recording], list[str]]:
    """Return a recording of each image; every prompt has a large part of its own, and each set an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    recordings, labels = [], []
    for number in range(num_sets):
        contexts = {layer: 10 * torch.randn(1, 3, 6, generator=generator) for layer in KINDS}
        for place in range(len(options)):
            option = (place + number) % len(options)
            seen = {
                layer: shared + 0.3 * torch.randn(1, 3, 6, generator=generator) for layer, shared in contexts.items()
            }
            seen["telling"][..., option] += 1
            recordings.append(Recording(KINDS, [0, 2, 4], [1.0, 0.7, 0.3], seen))
            labels.append(options[option])
    return recordings, labels


def test_the_planted_difference_is_found_behind_larger_ones_of_the_prompts() -> None:
    recordings, labels = planted(40)
    vectors = fit_vectors(recordings, labels, OPTIONS, direction="pairs", model="mine", attribute="gender")
    woman, man = vectors.directions["telling"].unbind(1)
    torch.testing.assert_close(woman, -man)
    assert (woman[:, 0] > 0.65).all() and (woman[:, 1] < -0.65).all()  # 1 and -1, of unit length
    assert vectors.best(1).layers == ["telling"]
    assert vectors.scores["telling"] > 0.7
    assert abs(vectors.scores["noise"]) < 0.1  # held out: a direction of noise is not its own witness
    assert (vectors.steps, vectors.options, vectors.kinds) == ((0, 2, 4), OPTIONS, KINDS)
    assert vectors.readers == ()


def test_a_difference_of_rounding_is_no_direction_and_no_evidence() -> None:
    recordings, labels = planted(6)
    for number, recording in enumerate(recordings):
        seen = recording.activations["telling"]
        seen[:, 0] = recordings[number // 2 * 2].activations["telling"][:, 0] * (1 + 9e-8 * (number % 2))
        recording.activations["other"] *= 1e-3  # small numbers are no rounding
    vectors = fit_vectors(recordings, labels, OPTIONS, direction="pairs")
    assert vectors.directions["telling"].norm(dim=-1).round().tolist() == [[0, 0], [1, 1], [1, 1]]
    assert vectors.directions["other"].norm(dim=-1).round().tolist() == [[1, 1]] * 3
    later = [replace(each, activations={"telling": each.activations["telling"][:, 1:]}) for each in recordings]
    later = [replace(each, steps=[2, 4], noise_levels=[0.7, 0.3]) for each in later]
    expected = fit_vectors(later, labels, OPTIONS, direction="pairs").scores["telling"] * 2 / 3
    assert vectors.scores["telling"] == pytest.approx(expected)


def test_prompts_that_change_no_layer_are_refused_and_one_layer_that_changes_is_enough() -> None:
    recordings, labels = planted(3)
    for number, recording in enumerate(recordings):
        recording.activations.update(recordings[number // 2 * 2].activations)
    with pytest.raises(ValueError, match=r"gave the same activations .* tokens that the text encoder reads"):
        fit_vectors(recordings, labels, OPTIONS, direction="pairs")
    cut_off = {layer: torch.cat([each.activations[layer] for each in recordings]) for layer in KINDS}
    numbers = np.array([OPTIONS.index(label) for label in labels])
    with pytest.raises(ValueError, match="gave the same activations"):
        directions_of(cut_off, [1.0, 0.7, 0.3], numbers)
    cut_off["other"] = planted(6)[0][0].activations["other"] + torch.from_numpy(numbers)[:, None, None]
    assert not directions_of(cut_off, [1.0, 0.7, 0.3], numbers).numbers["noise"]["direction"].any()


def test_labelled_images_that_differ_by_rounding_give_no_direction_either() -> None:
    activations = torch.randn(1, 3, 6, generator=torch.Generator().manual_seed(0)).repeat(4, 1, 1)
    activations[::2, 0] *= 1 + 2e-7
    activations[::2, 1:] += 1e-3
    found = directions_and_norm(activations, np.array([0, 1, 0, 1]))["direction"]
    assert found.norm(dim=-1).round().tolist() == [[0, 0], [1, 1], [1, 1]]


def test_of_three_options_each_points_away_from_the_mean() -> None:
    options = ("young", "grown", "old")
    recordings, labels = planted(60, options)
    directions = fit_vectors(recordings, labels, options, direction="pairs").directions["telling"]
    expected = torch.nn.functional.normalize(torch.eye(3, 6) - torch.eye(3, 6).mean(0), dim=-1)
    torch.testing.assert_close(directions, expected.expand_as(directions), rtol=0, atol=0.2)


def test_the_order_within_a_set_and_the_batches_do_not_matter() -> None:
    recordings, labels = planted(6)
    straight = fit_vectors(recordings, labels, OPTIONS, direction="pairs")
    swapped = [index ^ 1 for index in range(len(labels))]
    turned = fit_vectors([recordings[i] for i in swapped], [labels[i] for i in swapped], OPTIONS, direction="pairs")
    one = Recording(
        KINDS, [0, 2, 4], [1.0, 0.7, 0.3],
        {layer: torch.cat([each.activations[layer] for each in recordings]) for layer in KINDS},
    )  # fmt: skip
    together = fit_vectors([one], labels, OPTIONS, direction="pairs")
    for other in (turned, together):
        for layer in KINDS:
            torch.testing.assert_close(other.directions[layer], straight.directions[layer])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["woman", "woman", "man", "man"], r"labels\[0:2\] are woman, woman: .*each of woman, man once"),
        (["woman", "man", "woman", None], r"labels\[2:4\] are woman, None"),
        (["woman", "man", "woman"], r"labels\[2:3\] are woman"),
        (["woman", "man"], "less than two sets"),
    ],
)
def test_images_that_are_no_sets_are_refused(labels: list[Any], message: str) -> None:
    recordings, _ = planted(2)
    with pytest.raises(ValueError, match=message):
        fit_vectors(recordings[: len(labels)], labels, OPTIONS, direction="pairs")


def test_the_method_takes_the_k_best_layers_of_a_kind_or_those_named() -> None:
    recordings, labels = planted(10)
    vectors = fit_vectors(recordings, labels, OPTIONS, direction="pairs", model="mine")

    def layers(**params: Any) -> list[str]:
        return chosen(vectors, {"kind": "self_attention", "k": 1, "names": [], **params}).layers

    assert layers() == ["telling"]
    assert layers(kind="feed_forward") == ["other"]
    assert layers(names=["noise", "other"]) == ["noise", "other"]
    with pytest.raises(ConfigError, match=r"k=3: mine has 2 layers of the kind self_attention"):
        layers(k=3)


def test_the_fit_points_to_the_option_that_prompts_name_and_ranks_the_layer_that_tells_them(
    settings_with: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit_to_prompts(METHOD, settings_with("method.name=pairs"), tmp_path, monkeypatch) == 6
    vectors = load_vectors(tmp_path / VECTORS)
    assert isinstance(vectors, SteeringVectors)
    assert (vectors.options, vectors.noise_levels, set(vectors.kinds.values())) == (OPTIONS, LEVELS, {KIND})
    torch.testing.assert_close(vectors.directions["telling"], torch.stack([TOLD, -TOLD], 1))
    assert vectors.best(1).layers == ["telling"]


def test_each_image_is_shifted_by_alpha_times_the_direction_to_its_own_option_in_the_best_layer(
    backbone: Backbone, jobs: list[Job], settings_with: Callable[..., Settings], tmp_path: Path
) -> None:
    names = [f"{block}.attentions.0.transformer_blocks.0.attn1" for block in ("mid_block", "down_blocks.0")]
    drawn = torch.randn(4, 2, 64, generator=torch.Generator().manual_seed(0))
    SteeringVectors(
        {names[0]: drawn, names[1]: drawn[..., :32]}, {name: torch.ones(4) for name in names}, (0, 1, 2, 3),
        (0.998, 0.961, 0.694, 0.015), OPTIONS, "random", "gender", kinds=dict.fromkeys(names, "self_attention"),
        scores={names[0]: 0.9, names[1]: 0.1},
    ).save(tmp_path / VECTORS)  # fmt: skip
    settings = settings_with("method.name=pairs", "alpha=2", "method.alpha_unit=activation")
    settings.method.params = {"names": [], "kind": "self_attention", "k": 1}
    given = {job.image_id: (0, 1, 0, 0)[place] for place, job in enumerate(jobs)}
    inputs, steps = MethodInputs(settings, {"fit": as_artifact(tmp_path, "", VECTORS)}, option_of=given), iter(drawn)
    with METHOD.applied(backbone, inputs, jobs):
        found = denoise(backbone, jobs)

    def add(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[:4], output[4:] + 2 * next(steps)[[0, 1, 0, 0], None]])

    handle = backbone.denoiser.get_submodule(names[0]).register_forward_hook(add)
    expected = denoise(backbone, jobs)
    handle.remove()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_it_runs_through_the_stages_without_a_label_and_keeps_its_vectors(run: Run, outputs: Any) -> None:
    steered = run("steer", *FEW, "alpha=2")
    assert pixels(steered) != pixels(run("originals"))
    kept = load_vectors(steered / "vectors.safetensors")
    assert isinstance(kept, SteeringVectors)
    assert (len(kept.layers), kept.strength and kept.strength.alpha) == (2, 2.0)
    folder = run("fit", *FEW)
    assert json.loads((folder / "cost.json").read_text())["images"] == 4
    assert {path.name for path in folder.iterdir()} == {"cost.json", "vectors.safetensors", "manifest.json"}
    parents = json.loads((steered / "manifest.json").read_text())["parents"]
    assert set(parents) == {"fit"}


def test_what_the_pairs_are_counts_for_the_fits_key_and_the_layers_for_the_images(
    settings_with: Callable[..., Settings],
) -> None:
    def key(stage: str, *words: str) -> str:
        params = ("kind=self_attention", "k=2", "names=[]", "pairs=2")
        fixed = [f"method.params.{each}" for each in params]
        return Keys(settings_with("method.name=pairs", *fixed, *words)).key(stage)

    assert key("fit") == key("fit", "alpha=3", "method.params.k=1")
    assert key("fit") != key("fit", "method.params.pairs=3")
    assert key("steer") != key("steer", "method.params.k=1")
