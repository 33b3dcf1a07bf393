"""Steering vectors: a file gives back what was put in, unknown layers are refused, an average is a unit direction."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors, load_vectors


def level_of(step: int) -> float:
    """Return the noise level of a step in a schedule of 10 whose levels are evenly spread as angles."""
    return math.sin(math.pi / 2 * (1 - min(step, 10) / 10))


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
        noise_levels=tuple(level_of(step) for step in (0, 4, 8)),
        options=("woman", "man"),
        model="tiny",
        attribute="gender",
        scores={"mid.attn1": 0.5, "up.attn1": 0.75},
        kinds={"mid.attn1": "self_attention", "up.attn1": "self_attention"},
        made_with={"path": "models/tiny", "scheduler": "ddim", "num_steps": 20, "guidance_scale": 3.0},
        strength=Strength(1.5, "relative", 2, None, 20),
    )


def test_a_file_gives_back_what_was_put_in(vectors: SteeringVectors, tmp_path: Path) -> None:
    vectors.save(tmp_path / "v.safetensors")
    loaded = load_vectors(tmp_path / "v.safetensors", list(vectors.directions))
    for layer in vectors.directions:
        assert torch.equal(loaded.directions[layer], vectors.directions[layer])
        assert torch.equal(loaded.mean_norms[layer], vectors.mean_norms[layer])
    plain: dict[str, dict[str, Tensor]] = {"directions": {}, "mean_norms": {}}
    assert replace(loaded, **plain) == replace(vectors, **plain)


def test_words_stand_in_a_file_only_if_there_are_any(vectors: SteeringVectors, tmp_path: Path) -> None:
    words = {"woman": ["female"], "man": ["male"]}
    vectors.save(tmp_path / "v.safetensors")
    assert b'"words"' not in (tmp_path / "v.safetensors").read_bytes().replace(b"\\", b"")
    replace(vectors, words=words).save(tmp_path / "w.safetensors")
    assert load_vectors(tmp_path / "w.safetensors").words == words
    assert b'"words"' in (tmp_path / "w.safetensors").read_bytes().replace(b"\\", b"")


def test_only_the_layers_asked_for_are_loaded(vectors: SteeringVectors, tmp_path: Path) -> None:
    vectors.save(tmp_path / "v.safetensors")
    assert set(load_vectors(tmp_path / "v.safetensors", ["up.attn1"]).directions) == {"up.attn1"}
    assert load_vectors(tmp_path / "v.safetensors", []).directions == {}


def test_an_unknown_layer_is_refused_and_the_layers_listed(vectors: SteeringVectors, tmp_path: Path) -> None:
    vectors.save(tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match=r"down\.attn1") as caught:
        load_vectors(tmp_path / "v.safetensors", ["mid.attn1", "down.attn1"])
    assert "holds mid.attn1, up.attn1" in str(caught.value)


def test_vectors_of_double_precision_are_stored_as_float32(vectors: SteeringVectors, tmp_path: Path) -> None:
    double = replace(vectors, directions={layer: v.double() for layer, v in vectors.directions.items()})
    double.save(tmp_path / "v.safetensors")
    assert load_vectors(tmp_path / "v.safetensors", ["mid.attn1"]).directions["mid.attn1"].dtype == torch.float32


def test_the_file_says_what_it_holds_to_any_reader(vectors: SteeringVectors, tmp_path: Path) -> None:
    vectors.save(tmp_path / "v.safetensors")
    with safe_open(tmp_path / "v.safetensors", framework="pt") as file:
        details = json.loads(file.metadata()["icm_pipeline"])
    assert details["layers"] == ["mid.attn1", "up.attn1"]
    assert details["steps"] == [0, 4, 8]
    assert details["noise_levels"] == [level_of(0), level_of(4), level_of(8)]
    assert (details["options"], details["model"], details["attribute"]) == (["woman", "man"], "tiny", "gender")
    assert details["scores"] == {"mid.attn1": 0.5, "up.attn1": 0.75}
    assert details["strength"]["alpha"] == 1.5


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
    vectors.averaged().save(tmp_path / "v.safetensors")
    loaded = load_vectors(tmp_path / "v.safetensors", ["mid.attn1"])
    assert torch.equal(loaded.directions["mid.attn1"], vectors.averaged().directions["mid.attn1"])


@pytest.mark.parametrize(("step", "slot"), [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (6, 1), (7, 2), (8, 2), (50, 2)])
def test_a_noise_level_finds_the_nearest_recorded_one_and_the_noisier_of_two(
    vectors: SteeringVectors, step: int, slot: int
) -> None:
    assert vectors.slot(level_of(step)) == slot


def test_the_nearest_noise_level_is_the_nearest_as_an_angle(vectors: SteeringVectors) -> None:
    steep = replace(vectors, noise_levels=(1.0, 0.9, 0.0))
    assert abs(1.0 - 0.96) < abs(0.9 - 0.96)
    assert steep.slot(0.96) == 1
    assert steep.slot(0.98) == 0


def test_all_layers_are_loaded_when_none_are_named(vectors: SteeringVectors, tmp_path: Path) -> None:
    vectors.save(tmp_path / "v.safetensors")
    assert load_vectors(tmp_path / "v.safetensors").layers == ["mid.attn1", "up.attn1"]


def test_a_part_of_the_layers_keeps_what_belongs_to_them(vectors: SteeringVectors) -> None:
    part = vectors.of_layers(["up.attn1"])
    assert part.layers == list(part.mean_norms) == list(part.scores) == ["up.attn1"]
    with pytest.raises(ValueError, match=r"there are for mid\.attn1, up\.attn1"):
        vectors.of_layers(["up.attn1", "elsewhere"])


def test_an_unknown_option_is_refused_with_the_options(vectors: SteeringVectors) -> None:
    assert vectors.option_index("man") == 1
    with pytest.raises(ValueError, match="woman, man"):
        vectors.option_index("child")


def test_a_file_of_other_tensors_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="no steering vectors"):
        load_vectors(tmp_path / "w.safetensors")


def test_an_artifacts_folder_stands_for_the_vectors_in_it(vectors: SteeringVectors, tmp_path: Path) -> None:
    vectors.save(tmp_path / "vectors.safetensors")
    assert load_vectors(tmp_path).layers == vectors.layers


def test_a_path_without_vectors_is_told_with_where_they_lie(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder without vectors\.safetensors\.$"):
        load_vectors(tmp_path)
    with pytest.raises(ValueError, match=r"There is no file .*misspelt\.safetensors; stage=steer leaves outputs/"):
        load_vectors(tmp_path / "misspelt.safetensors")


def test_a_file_that_is_broken_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(ValueError, match="cannot be read as steering vectors"):
        load_vectors(path)


def test_the_best_layers_are_those_with_the_highest_scores(vectors: SteeringVectors) -> None:
    assert vectors.best(1).layers == ["up.attn1"]
    assert vectors.best(1).kinds == {"up.attn1": "self_attention"}
    assert vectors.best(2).layers == ["up.attn1", "mid.attn1"]
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"k={k}: choose from 1 to 2"):
            vectors.best(k)


def test_a_file_of_an_earlier_version_without_kinds_is_read(vectors: SteeringVectors, tmp_path: Path) -> None:
    path = rewritten(vectors, tmp_path, drop=("format", "kinds", "made_with"))
    loaded = load_vectors(path)
    assert (loaded.kinds, loaded.made_with, loaded.scores) == ({}, {}, vectors.scores)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 2}, "install a newer one"),
        ({"strength": {"alpha": 1.0, "colour": "red"}}, "cannot be read as steering vectors"),
        ({"steps": None}, "cannot be read as steering vectors"),
        ({"words": ["she", "he"]}, r"cannot be read as steering vectors: .*words=\['she', 'he'\] are not by option"),
        ({"words": {"woman": "she"}}, "cannot be read as steering vectors: .*the words of woman, 'she', are no list"),
        ({"words": {"woman": [1]}}, "cannot be read as steering vectors"),
        ({"tuned": {"woman": {"alpha": "much", "curve": []}}}, "cannot be read as steering vectors: .*alpha='much'"),
        ({"tuned": {"woman": {"alpha": None, "curve": []}}}, "cannot be read as steering vectors"),
        ({"tuned": ["woman"]}, "cannot be read as steering vectors"),
    ],
)
def test_a_file_with_other_details_is_refused_as_one(
    vectors: SteeringVectors, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_vectors(rewritten(vectors, tmp_path, **changed))


@pytest.mark.parametrize("details", ["{}", "not JSON"])
def test_a_file_without_details_is_refused_as_one(tmp_path: Path, details: str) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "v.safetensors", metadata={"icm_pipeline": details})
    with pytest.raises(ValueError, match="cannot be read as steering vectors"):
        load_vectors(tmp_path / "v.safetensors")


def rewritten(vectors: SteeringVectors, folder: Path, drop: tuple[str, ...] = (), **changed: Any) -> Path:
    """Save vectors in a file whose details lack some entries or have others."""
    vectors.save(folder / "v.safetensors")
    with safe_open(folder / "v.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        details = json.loads(file.metadata()["icm_pipeline"]) | changed
    kept = {name: value for name, value in details.items() if name not in drop}
    save_file(tensors, folder / "v.safetensors", metadata={"icm_pipeline": json.dumps(kept)})
    return folder / "v.safetensors"


def test_vectors_come_from_a_repository_of_the_hub(
    vectors: SteeringVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repository lies in the hub's cache, as after an earlier fetch: nothing here reaches a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--somebody--gender-vectors"
    for folder in ("refs", "snapshots/abc"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs/main").write_text("abc")
    vectors.save(repository / "snapshots/abc/vectors.safetensors")
    assert load_vectors("somebody/gender-vectors").scores == vectors.scores
    with pytest.raises(ValueError, match=r"somebody/other is no file here, and vectors\.safetensors could not"):
        load_vectors("somebody/other")


def test_vectors_are_told_in_a_line(vectors: SteeringVectors) -> None:
    told = repr(vectors)
    assert "gender (woman, man) on tiny: 2 layers, 3 steps" in told
    assert "tensor" not in told
