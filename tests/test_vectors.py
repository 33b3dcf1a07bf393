"""Steering vectors: a file gives back what was put in, unknown layers are refused, an average is a unit direction."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from icm_pipeline.vectors import SteeringVectors, load_vectors, save_vectors


@pytest.fixture
def vectors() -> SteeringVectors:
    generator = torch.Generator().manual_seed(0)
    widths = {"mid.attn1": 8, "up.attn1": 4}
    return SteeringVectors(
        directions={
            layer: torch.nn.functional.normalize(torch.randn(3, 2, d, generator=generator), dim=-1)
            for layer, d in widths.items()
        },
        mean_norms={layer: torch.rand(3, generator=generator) for layer in widths},
        steps=(0, 4, 8),
        options=("woman", "man"),
        model="tiny",
        attribute="gender",
    )


def test_a_file_gives_back_what_was_put_in(vectors: SteeringVectors, tmp_path: Path) -> None:
    save_vectors(vectors, tmp_path / "v.safetensors")
    loaded = load_vectors(tmp_path / "v.safetensors", list(vectors.directions))
    for layer in vectors.directions:
        assert torch.equal(loaded.directions[layer], vectors.directions[layer])
        assert torch.equal(loaded.mean_norms[layer], vectors.mean_norms[layer])
    plain = {"directions": {}, "mean_norms": {}}
    assert replace(loaded, **plain) == replace(vectors, **plain)


def test_only_the_layers_asked_for_are_loaded(vectors: SteeringVectors, tmp_path: Path) -> None:
    save_vectors(vectors, tmp_path / "v.safetensors")
    assert set(load_vectors(tmp_path / "v.safetensors", ["up.attn1"]).directions) == {"up.attn1"}
    assert load_vectors(tmp_path / "v.safetensors", []).directions == {}


def test_an_unknown_layer_is_refused_and_the_layers_listed(vectors: SteeringVectors, tmp_path: Path) -> None:
    save_vectors(vectors, tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match=r"down\.attn1") as caught:
        load_vectors(tmp_path / "v.safetensors", ["mid.attn1", "down.attn1"])
    assert "holds mid.attn1, up.attn1" in str(caught.value)


def test_vectors_of_double_precision_are_stored_as_float32(vectors: SteeringVectors, tmp_path: Path) -> None:
    double = replace(vectors, directions={layer: v.double() for layer, v in vectors.directions.items()})
    save_vectors(double, tmp_path / "v.safetensors")
    assert load_vectors(tmp_path / "v.safetensors", ["mid.attn1"]).directions["mid.attn1"].dtype == torch.float32


def test_the_file_says_what_it_holds_to_any_reader(vectors: SteeringVectors, tmp_path: Path) -> None:
    save_vectors(vectors, tmp_path / "v.safetensors")
    with safe_open(tmp_path / "v.safetensors", framework="pt") as file:
        details = json.loads(file.metadata()["icm_pipeline"])
    assert details == {"steps": [0, 4, 8], "options": ["woman", "man"], "model": "tiny", "attribute": "gender"}


def test_averaged_vectors_are_the_unit_mean_over_steps_at_every_step(vectors: SteeringVectors) -> None:
    averaged = vectors.averaged()
    for layer, values in vectors.directions.items():
        mean = values.mean(0)
        for step in range(3):
            torch.testing.assert_close(averaged.directions[layer][step], mean / mean.norm(dim=-1, keepdim=True))
        assert torch.equal(averaged.mean_norms[layer], vectors.mean_norms[layer])


def test_averaging_what_is_equal_changes_nothing(vectors: SteeringVectors) -> None:
    constant = replace(vectors, directions={layer: v[:1].repeat(3, 1, 1) for layer, v in vectors.directions.items()})
    for layer, values in constant.averaged().directions.items():
        torch.testing.assert_close(values, constant.directions[layer])


def test_averaging_leaves_the_original_alone(vectors: SteeringVectors) -> None:
    before = {layer: values.clone() for layer, values in vectors.directions.items()}
    vectors.averaged().directions["mid.attn1"].zero_()
    assert all(torch.equal(vectors.directions[layer], values) for layer, values in before.items())


def test_averaged_vectors_can_be_saved(vectors: SteeringVectors, tmp_path: Path) -> None:
    save_vectors(vectors.averaged(), tmp_path / "v.safetensors")
    loaded = load_vectors(tmp_path / "v.safetensors", ["mid.attn1"])
    assert torch.equal(loaded.directions["mid.attn1"], vectors.averaged().directions["mid.attn1"])


@pytest.mark.parametrize(("step", "slot"), [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (6, 1), (7, 2), (8, 2), (50, 2)])
def test_a_step_finds_the_nearest_recorded_one_and_the_earlier_of_two(
    vectors: SteeringVectors, step: int, slot: int
) -> None:
    assert vectors.slot(step) == slot
