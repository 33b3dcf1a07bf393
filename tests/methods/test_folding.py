"""Folding: a bias equals the hooks it stands for, and what no bias can stand for is refused with the reason."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import icm_pipeline
from icm_pipeline.methods.folding import FoldingError
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers import tiny
from tests.helpers.denoisers import TINY
from tests.helpers.folding import FOLDABLE, NUM_STEPS, close, constant_vectors, every_row_shifted, make, quiet
from tests.helpers.pipelines import build

ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1"
FEED_FORWARD = "mid_block.attentions.0.transformer_blocks.0.ff"
REFUSED = {
    "flux": ("single_transformer_blocks.0.attn", "text tokens"),
    "z_image": ("layers.0.attention", "text tokens"),
    "sana": ("transformer_blocks.0.ff", "no linear map"),
}
GIVEN = {"alpha": 2.0, "alpha_unit": "activation", "both_halves": True}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return quiet("sd")


@pytest.fixture(scope="module")
def vectors(pipe: Any) -> SteeringVectors:
    return constant_vectors(pipe, [ATTENTION, FEED_FORWARD])


@pytest.mark.parametrize("family", FOLDABLE)
def test_without_guidance_a_bias_is_what_steering_does(family: str) -> None:
    folding_is_steering(quiet(family), FOLDABLE[family])


def folding_is_steering(pipe: Any, layers: list[str]) -> None:
    """Check that folded layers make what steered ones do, and that the pipeline is as before afterwards."""
    vectors = constant_vectors(pipe, layers)
    plain = make(pipe)
    with icm_pipeline.steer(pipe, vectors, "man", alpha=2.0):
        steered = make(pipe)
    with icm_pipeline.fold(pipe, vectors, "man", **GIVEN):
        close(make(pipe), steered)
    assert not torch.allclose(steered, plain, atol=1e-3)
    assert torch.equal(make(pipe), plain)


def test_a_layer_that_divides_its_output_is_folded_by_as_much_more() -> None:
    pipe = quiet("sd")
    pipe.unet.get_submodule(ATTENTION).rescale_output_factor = 2.5
    folding_is_steering(pipe, [ATTENTION])


def test_with_guidance_a_bias_is_hooks_that_shift_both_halves(pipe: Any, vectors: SteeringVectors) -> None:
    with every_row_shifted(pipe.unet, {layer: 2.0 * v[0, 1] for layer, v in vectors.directions.items()}):
        shifted = make(pipe, 5.0)
    with icm_pipeline.steer(pipe, vectors, "man", alpha=2.0):
        conditional_only = make(pipe, 5.0)
    with icm_pipeline.fold(pipe, vectors, "man", **GIVEN):
        folded = make(pipe, 5.0)
    close(folded, shifted)
    assert not torch.allclose(folded, conditional_only, atol=1e-3)


def test_a_relative_alpha_of_equal_lengths_is_folded_in_activation_units(pipe: Any, vectors: SteeringVectors) -> None:
    even = replace(vectors, mean_norms={layer: torch.full((NUM_STEPS,), 0.5) for layer in vectors.layers})
    with icm_pipeline.fold(pipe, even, "man", alpha=4.0, alpha_unit="relative", both_halves=True):
        relative = make(pipe)
    with icm_pipeline.fold(pipe, even, "man", **GIVEN):
        close(make(pipe), relative)


def test_a_folded_pipeline_is_saved_and_loaded_as_any_other(vectors: SteeringVectors, tmp_path: Path) -> None:
    pipe = quiet("sd")
    icm_pipeline.fold(pipe, vectors, "woman", **GIVEN)
    pipe.save_pretrained(tmp_path)
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(make(loaded), make(pipe))


def test_undoing_twice_is_undoing_once(pipe: Any, vectors: SteeringVectors) -> None:
    plain = make(pipe)
    folded = icm_pipeline.fold(pipe, vectors, "man", **GIVEN)
    folded.undo()
    folded.undo()
    assert torch.equal(make(pipe), plain)


def test_the_biases_come_back_after_an_exception(pipe: Any, vectors: SteeringVectors) -> None:
    plain = make(pipe)
    with pytest.raises(KeyError), icm_pipeline.fold(pipe, vectors, "man", **GIVEN):
        raise KeyError
    assert torch.equal(make(pipe), plain)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"both_halves": False}, "conditional half"),
        ({"window": (1, None)}, "every step"),
        ({"window": (0, 0)}, "every step"),
        ({"window": (0, NUM_STEPS - 1)}, "every step"),  # a run may have more steps than were recorded
        ({"norm_preserving": True}, "depends on the token"),
        ({"alpha_unit": "relative"}, "differs from step to step.*activation units"),
        ({"option": "child"}, "woman, man"),
    ],
)
def test_what_no_bias_can_stand_for_is_refused(
    pipe: Any, vectors: SteeringVectors, changed: dict[str, Any], reason: str
) -> None:
    plain = make(pipe)
    with pytest.raises(ValueError, match=reason):
        icm_pipeline.fold(pipe, vectors, **{"option": "man", **GIVEN, **changed})
    assert torch.equal(make(pipe), plain)


def test_directions_of_their_own_for_each_step_are_refused_and_their_average_is_not(
    pipe: Any, vectors: SteeringVectors
) -> None:
    generator = torch.Generator().manual_seed(1)
    turned = {
        layer: torch.nn.functional.normalize(torch.randn(v.shape, generator=generator), dim=-1)
        for layer, v in vectors.directions.items()
    }
    per_step = replace(vectors, directions=turned, strength=Strength(2.0, "activation", 0, None, NUM_STEPS))
    with pytest.raises(FoldingError, match=r"vectors\.averaged\(\)"):
        icm_pipeline.fold(pipe, per_step, "man", both_halves=True)
    with icm_pipeline.fold(pipe, per_step.averaged(), "man", both_halves=True):
        make(pipe)


def test_a_window_to_the_last_of_a_known_number_of_steps_is_a_bias(pipe: Any, vectors: SteeringVectors) -> None:
    used = replace(vectors, strength=Strength(2.0, "activation", 0, 49, 50))
    with icm_pipeline.fold(pipe, used, "man", both_halves=True):
        make(pipe)
    with pytest.raises(FoldingError, match=r"steps 0 to 48 .*window=\(0, None\)"):
        icm_pipeline.fold(pipe, replace(used, strength=Strength(2.0, "activation", 0, 48, 50)), "man", both_halves=True)


@pytest.mark.parametrize("family", REFUSED)
def test_a_layer_without_a_projection_of_image_tokens_alone_is_refused(family: str) -> None:
    pipe = build(family)
    layer, reason = REFUSED[family]
    vectors = SteeringVectors(
        directions={layer: torch.ones(1, 1, 32)}, mean_norms={layer: torch.ones(1)}, steps=(0,), noise_levels=(1.0,),
        options=("man",), model="random", attribute="gender",
    )  # fmt: skip
    with pytest.raises(FoldingError, match=reason):
        icm_pipeline.fold(pipe, vectors, "man", **GIVEN)


@pytest.mark.parametrize(("family", "refused"), [("cogview4", True), ("hunyuan_image", False)])
def test_a_map_of_image_and_text_is_refused_though_they_come_out_as_a_pair(family: str, refused: bool) -> None:
    pipe = tiny.build(TINY[family])
    layer = "transformer_blocks.0.attn1" if refused else "transformer_blocks.0.attn"
    width = pipe.transformer.get_submodule(layer).to_out[0].out_features
    vectors = SteeringVectors(
        directions={layer: torch.ones(1, 1, width)}, mean_norms={layer: torch.ones(1)}, steps=(0,), noise_levels=(1.0,),
        options=("man",), model="random", attribute="gender",
    )  # fmt: skip
    with pytest.raises(FoldingError, match="text tokens") if refused else nullcontext():
        icm_pipeline.fold(pipe, vectors, "man", **GIVEN).undo()


def test_vectors_of_another_width_change_nothing(pipe: Any, vectors: SteeringVectors) -> None:
    plain, last = make(pipe), vectors.layers[-1]
    wrong = replace(vectors, directions={**vectors.directions, last: vectors.directions[last][..., :-1]})
    with pytest.raises(FoldingError, match=f"{last} are .* wide"):
        icm_pipeline.fold(pipe, wrong, "man", **GIVEN)
    assert torch.equal(make(pipe), plain)


def test_a_layer_that_is_read_from_disk_in_every_call_is_refused(vectors: SteeringVectors, tmp_path: Path) -> None:
    pipe = quiet("sd")
    pipe.unet.enable_group_offload(
        onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), offload_type="leaf_level",
        offload_to_disk_path=str(tmp_path),
    )  # fmt: skip
    plain = make(pipe)
    with pytest.raises(FoldingError, match=r"disk .*Fold before"):
        icm_pipeline.fold(pipe, vectors, "man", **GIVEN)
    assert torch.equal(make(pipe), plain)


def test_a_fold_before_offloading_to_disk_stays(vectors: SteeringVectors, tmp_path: Path) -> None:
    pipe = quiet("sd")
    icm_pipeline.fold(pipe, vectors, "man", **GIVEN)
    folded = make(pipe)
    pipe.unet.enable_group_offload(
        onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), offload_type="block_level",
        num_blocks_per_group=1, offload_to_disk_path=str(tmp_path),
    )  # fmt: skip
    close(make(pipe), folded)
    with pytest.raises(FoldingError, match="disk"):
        icm_pipeline.fold(pipe, vectors, "man", **GIVEN)


def test_offloading_into_memory_is_folded(pipe: Any, vectors: SteeringVectors) -> None:
    with icm_pipeline.fold(pipe, vectors, "man", **GIVEN):
        expected = make(pipe)
    offloaded = quiet("sd")
    offloaded.unet.load_state_dict(pipe.unet.state_dict())
    offloaded.text_encoder.load_state_dict(pipe.text_encoder.state_dict())
    offloaded.unet.enable_group_offload(
        onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), offload_type="leaf_level"
    )
    with icm_pipeline.fold(offloaded, vectors, "man", **GIVEN):
        close(make(offloaded), expected)


def test_a_bias_too_coarse_for_the_shift_is_refused_and_no_other_is_changed(vectors: SteeringVectors) -> None:
    pipe = quiet("sd")
    first, second = (pipe.unet.get_submodule(layer) for layer in (ATTENTION, FEED_FORWARD))
    second.net[-1].bias.data.uniform_(0.5, 1)
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    first.to(torch.float32)
    before = [projection.bias.float() for projection in (first.to_out[0], second.net[-1])]
    with pytest.raises(FoldingError, match=rf"{FEED_FORWARD} is kept in float8_e4m3fn, whose rounding takes \d+% "):
        icm_pipeline.fold(pipe, vectors, "man", **{**GIVEN, "alpha": 0.3})
    assert all(map(torch.equal, before, [each.bias.float() for each in (first.to_out[0], second.net[-1])]))


def test_a_fold_under_a_lora_stays_when_the_adapter_is_merged_unloaded_and_saved(
    vectors: SteeringVectors, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    pipe = quiet("sd")
    targets = ["attn1.to_out.0", "ff.net.2"]
    pipe.unet.add_adapter(peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    plain = make(pipe)
    with icm_pipeline.steer(pipe, vectors, "man", alpha=2.0):
        steered = make(pipe)
    with icm_pipeline.fold(pipe, vectors, "man", **GIVEN):
        close(make(pipe), steered)
    assert torch.equal(make(pipe), plain)
    icm_pipeline.fold(pipe, vectors, "man", **GIVEN)
    pipe.fuse_lora(components=["unet"])
    close(make(pipe), steered)
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path)
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    loaded.set_progress_bar_config(disable=True)
    close(make(loaded), steered)


class Adapter(torch.nn.Module):
    """What PEFT puts in a layer's place: a LoRA adds to the layer, others do what they do."""

    def __init__(self, base_layer: torch.nn.Module, is_lora: bool) -> None:
        super().__init__()
        self.base_layer, self.is_lora = base_layer, is_lora
        if is_lora:
            self.lora_A = torch.nn.ModuleDict()

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 1 if self.is_lora else 2 * self.base_layer(x)


@pytest.mark.parametrize("is_lora", [True, False])
def test_a_lora_is_folded_beneath_and_another_adapter_refused(vectors: SteeringVectors, is_lora: bool) -> None:
    pipe = quiet("sd")
    attention = pipe.unet.get_submodule(ATTENTION)
    attention.to_out[0] = Adapter(attention.to_out[0], is_lora)
    if is_lora:
        return folding_is_steering(pipe, [ATTENTION])
    with pytest.raises(FoldingError, match="PEFT"):
        icm_pipeline.fold(pipe, vectors.of_layers([ATTENTION]), "man", **GIVEN)
