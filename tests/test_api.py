"""steer and record around a pipeline that its user loaded: the examples of two pages, and what is refused."""

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import icm_pipeline
from icm_pipeline.methods import chosen
from icm_pipeline.methods.strength import Strength
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers.pipelines import build

SELF = "mid_block.attentions.0.transformer_blocks.0.attn1"


@pytest.fixture(scope="module")
def vectors(pipe: Any) -> SteeringVectors:
    with icm_pipeline.record(pipe, layers=[SELF]) as seen:
        make(pipe)
    recording = seen.recordings[0]
    drawn = torch.randn(4, 2, recording.activations[SELF].shape[-1], generator=torch.Generator().manual_seed(0))
    return SteeringVectors(
        directions={SELF: torch.nn.functional.normalize(drawn, dim=-1)},
        mean_norms={SELF: recording.activations[SELF].norm(dim=-1).mean(0)},
        steps=tuple(recording.steps), noise_levels=tuple(recording.noise_levels), options=("woman", "man"),
        model="sd", attribute="gender", strength=Strength(3.0, "relative", 0, None, 4),
    )  # fmt: skip


def make(pipe: Any, num_images: int = 1, num_steps: int = 4, **more: Any) -> Tensor:
    """Return latents of a plain call of the pipeline, as its user makes it."""
    generator = torch.Generator().manual_seed(0)
    return pipe(
        "a face of a doctor", num_images_per_prompt=num_images, num_inference_steps=num_steps, generator=generator,
        output_type="latent", **more,
    ).images  # fmt: skip


def test_a_file_of_vectors_steers_a_pipeline_and_leaves_it_as_it_was(
    pipe: Any, vectors: SteeringVectors, tmp_path: Path
) -> None:
    vectors.save(tmp_path / "gender.safetensors")
    plain = make(pipe, 2)
    with icm_pipeline.steer(pipe, tmp_path / "gender.safetensors", option="woman"):
        women = make(pipe, 2)
    with icm_pipeline.steer(pipe, vectors, option=["woman", "man"]):
        both = make(pipe, 2)
    assert torch.equal(women[0], both[0])
    assert not torch.equal(women[1], both[1])
    assert not torch.equal(women[0], plain[0])
    assert torch.equal(make(pipe, 2), plain)


def test_each_image_may_have_an_alpha_of_its_own(pipe: Any, vectors: SteeringVectors) -> None:
    with icm_pipeline.steer(pipe, vectors, option="woman", alpha=[0, 2.5]):
        both = make(pipe, 2)
    with icm_pipeline.steer(pipe, vectors, option="woman", alpha=2.5):
        strong = make(pipe, 2)
    assert torch.equal(both[0], make(pipe, 2)[0])
    assert torch.equal(both[1], strong[1])
    with pytest.raises(ValueError, match="2 alphas"), icm_pipeline.steer(pipe, vectors, "woman", alpha=[1, 2]):
        make(pipe, 3)


@pytest.mark.parametrize("alpha", [np.float32(3), torch.tensor(3), np.array([3.0])], ids=repr)
def test_a_number_of_any_library_is_an_alpha(pipe: Any, vectors: SteeringVectors, alpha: Any) -> None:
    made = list[Tensor]()
    for given in (3.0, alpha):
        with icm_pipeline.steer(pipe, vectors, "woman", alpha=given):
            made.append(make(pipe))
    assert torch.equal(made[0], made[1])


@pytest.mark.parametrize("alpha", ["strong", math.nan])
def test_an_alpha_that_is_no_number_is_refused(pipe: Any, vectors: SteeringVectors, alpha: Any) -> None:
    for known in (vectors, replace(vectors, strength=None)):
        steered = icm_pipeline.steer(pipe, known, "man", alpha=alpha)
        with pytest.raises(ValueError, match=f"alpha={alpha!r} is no number"), steered:
            pytest.fail("the context must not be entered")


def test_alpha_zero_is_the_plain_picture_bitwise(pipe: Any, vectors: SteeringVectors) -> None:
    plain = make(pipe, 2)
    with icm_pipeline.steer(pipe, vectors, option="man", alpha=0):
        assert torch.equal(make(pipe, 2), plain)


def test_the_number_of_images_is_the_pipelines_own(pipe: Any, vectors: SteeringVectors) -> None:
    with icm_pipeline.steer(pipe, vectors, option="man"):
        for guidance_scale in (1.0, 7.5):
            for num_images in (1, 3):
                assert len(make(pipe, num_images, guidance_scale=guidance_scale)) == num_images


def test_the_files_window_counts_in_its_own_steps_and_a_given_one_in_the_runs(
    pipe: Any, vectors: SteeringVectors
) -> None:
    late = replace(vectors, strength=Strength(3.0, "relative", 2, None, 4))
    with icm_pipeline.steer(pipe, late, option="man"):
        from_half = make(pipe, num_steps=8)
    with icm_pipeline.steer(pipe, late, option="man", window=(4, None)):
        assert torch.equal(make(pipe, num_steps=8), from_half)
    with icm_pipeline.steer(pipe, late, option="man", window=(2, None)):
        assert not torch.equal(make(pipe, num_steps=8), from_half)


def test_a_window_is_given_as_a_whole(pipe: Any, vectors: SteeringVectors) -> None:
    late = replace(vectors, strength=Strength(3.0, "relative", 2, None, 4))
    with icm_pipeline.steer(pipe, late, option="man", window=(0, 1)):
        early = make(pipe)
    whole = replace(vectors, strength=Strength(3.0, "relative", 0, 1, 4))
    with icm_pipeline.steer(pipe, whole, option="man"):
        assert torch.equal(make(pipe), early)
    with pytest.raises(TypeError, match="last_step"):
        icm_pipeline.steer(pipe, late, option="man", last_step=1)  # type: ignore[call-arg]


def test_recording_keeps_the_calls_apart(pipe: Any) -> None:
    plain = make(pipe, 3)
    with icm_pipeline.record(pipe) as seen:
        assert torch.equal(make(pipe, 3), plain)
        make(pipe, 2, num_steps=5)
    first, second = seen.recordings
    assert {x.shape[:2] for x in first.activations.values()} == {(3, 4)}
    assert {x.shape[:2] for x in second.activations.values()} == {(2, 5)}
    assert set(first.kinds.values()) == {"self_attention", "cross_attention", "feed_forward"}
    assert first.noise_levels != second.noise_levels


@pytest.mark.parametrize("steps", [[], [2, 2], [-1]])
def test_steps_are_asked_for_once_each(pipe: Any, steps: list[int]) -> None:
    with pytest.raises(ValueError, match="one or more steps, each once"), icm_pipeline.record(pipe, steps=steps):
        pytest.fail("the context must not be entered")


def test_a_step_that_the_run_does_not_have_is_told_at_its_beginning(pipe: Any) -> None:
    with pytest.raises(ValueError, match=r"this run has 4 steps.* not \[9\]"), icm_pipeline.record(pipe, steps=[1, 9]):
        make(pipe)


def test_a_call_that_was_cut_short_leaves_the_others_readable(pipe: Any) -> None:
    def stop(pipe: Any, step: int, timestep: Any, inputs: Any) -> Any:
        if step == 1:
            raise KeyboardInterrupt
        return inputs

    with icm_pipeline.record(pipe) as seen:
        with pytest.raises(KeyboardInterrupt):
            make(pipe, callback_on_step_end=stop)
        make(pipe, 2)
    (whole,) = seen.recordings
    assert len(whole.activations[SELF]) == 2
    assert seen.cut_short == 1
    assert seen.recordings[0] is whole


@pytest.mark.parametrize(
    ("used", "given"),
    [(Strength(3.0, "relative", 13, 20, 50), {}), (Strength(3.0, "relative", 0, None, 4), {"window": (60, None)})],
)
def test_a_window_that_holds_none_of_the_runs_steps_is_refused(
    pipe: Any, vectors: SteeringVectors, used: Strength, given: dict[str, Any]
) -> None:
    steered = icm_pipeline.steer(pipe, replace(vectors, strength=used), option="man", **given)
    with pytest.raises(ValueError, match="holds none of this run's 4 steps"), steered:
        make(pipe)


@pytest.mark.parametrize("width", [1, 8])
def test_vectors_of_another_width_are_refused_by_layer(pipe: Any, vectors: SteeringVectors, width: int) -> None:
    wrong = replace(vectors, directions={SELF: vectors.directions[SELF][..., :width]})
    with (
        pytest.raises(ValueError, match=rf"{SELF} are {width} wide .* another model"),
        icm_pipeline.steer(pipe, wrong, option="man"),
    ):
        make(pipe)


def test_a_whole_block_is_recorded_and_steered_as_a_layer(pipe: Any, vectors: SteeringVectors) -> None:
    block, plain = SELF.removesuffix(".attn1"), make(pipe)
    with icm_pipeline.record(pipe, layers=[block]) as seen:
        assert torch.equal(make(pipe), plain)
    assert seen.recordings[0].kinds == {block: "other"}
    of_block = replace(
        vectors, directions={block: vectors.directions[SELF]}, mean_norms={block: vectors.mean_norms[SELF]}
    )
    with icm_pipeline.steer(pipe, of_block, option="man"):
        assert not torch.equal(make(pipe), plain)


def test_a_site_behind_a_gate_is_recorded_and_steered_by_its_name() -> None:
    pipe = build("pixart")
    pipe.set_progress_bar_config(disable=True)
    gated, call = "transformer_blocks.0.attn1@gate", {"prompt": "a", "num_inference_steps": 2, "output_type": "latent"}
    call |= {"generator": torch.Generator().manual_seed(0), "height": 16, "width": 16, "use_resolution_binning": False}
    with icm_pipeline.record(pipe, layers=[gated, "transformer_blocks.0.attn1"]) as seen:
        pipe(**call)
    assert seen.recordings[0].kinds[gated] == "gated_self_attention"
    assert not torch.equal(*seen.recordings[0].activations.values())


def test_a_class_derived_from_a_known_one_is_known_unless_it_makes_its_images_in_another_way(pipe: Any) -> None:
    class Mine(type(pipe)):  # type: ignore[misc]
        pass

    class Other(Mine):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    mine = Mine(**pipe.components, requires_safety_checker=False)
    mine.set_progress_bar_config(disable=True)
    with icm_pipeline.record(mine, layers=[SELF]) as seen:
        make(mine)
    assert len(seen.recordings) == 1
    other = Other(**pipe.components, requires_safety_checker=False)
    with pytest.raises(ValueError, match=r"Other is a .* with a __call__ of its own"):
        icm_pipeline.attach(other)


def test_a_class_is_known_by_itself_and_not_by_its_name(pipe: Any) -> None:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        pytest.fail("a loop with the conditional rows first, say")

    for base, message in ((type(pipe), "with a __call__ of its own"), (object, "is not known here")):
        namesake = type("StableDiffusionPipeline", (base,), {"__call__": call})
        with pytest.raises(ValueError, match=rf"A StableDiffusionPipeline .*{message}"):
            icm_pipeline.attach(object.__new__(namesake))


def test_a_pipeline_without_its_denoiser_is_refused(pipe: Any) -> None:
    parts = pipe.components | {"unet": None}
    with pytest.raises(ValueError, match="This StableDiffusionPipeline has no unet"):
        icm_pipeline.attach(type(pipe)(**parts, requires_safety_checker=False))


def test_a_call_that_was_cut_short_says_why_there_is_no_recording(pipe: Any) -> None:
    def stop(pipe: Any, step: int, timestep: Any, inputs: Any) -> Any:
        raise KeyboardInterrupt

    with icm_pipeline.record(pipe) as seen, pytest.raises(KeyboardInterrupt):
        make(pipe, callback_on_step_end=stop)
    with pytest.raises(ValueError, match=r"the run never reached \[1, 2, 3\]: .* cut short"):
        _ = seen.recordings


def test_ones_own_intervention_stands_on_the_same_hooks(pipe: Any) -> None:
    plain, backbone = make(pipe, 2), icm_pipeline.attach(pipe)

    def ablate(tokens: Tensor, site: Any, clock: Any) -> Tensor:
        return torch.zeros_like(tokens)

    with icm_pipeline.hooked(backbone, [SELF], ablate), icm_pipeline.record(pipe, layers=[SELF]) as seen:
        assert not torch.equal(make(pipe, 2), plain)
    assert not seen.recordings[0].activations[SELF].any()
    assert torch.equal(make(pipe, 2), plain)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"option": "child"}, "woman, man"),
        ({"option": "man", "layers": ["elsewhere"]}, "elsewhere"),
        ({"option": "man", "alpha_unit": "metres"}, "relative or activation"),
        ({"option": "man", "window": (3, 2)}, r"window=\(3, 2\) holds no step"),
        ({"option": "man", "window": (-1, None)}, "holds no step"),
        ({"option": "man", "window": "all"}, "window='all': give the first and the last step"),
        ({"option": "man", "window": 3}, "window=3: give the first and the last step"),
        ({"option": "man", "window": (1, 2, 3)}, "give the first and the last step"),
        ({"option": "man", "alpha_unit": "activation"}, "alpha=3 was in units of relative: give an alpha="),
    ],
)
def test_what_is_not_known_is_refused(pipe: Any, vectors: SteeringVectors, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message), icm_pipeline.steer(pipe, vectors, **wrong):
        pytest.fail("the context must not be entered")


@pytest.mark.parametrize(
    ("made_with", "loaded", "warns"),
    [
        ("embedded:tiny", "/somewhere/zoo/tiny", False),
        ("embedded:tiny", "/somewhere/zoo/tiny_sdxl", True),
        ("stabilityai/sdxl", "/cache/models--stabilityai--sdxl/snapshots/0123abcd", False),
        ("stabilityai/sdxl", "/cache/models--somebody--sdxl-turbo/snapshots/0123abcd", True),
        ("C:\\models\\mine\\", "D:/models/mine", False),
        (None, "/somewhere/tiny_sdxl", False),
        ("embedded:tiny", None, False),
    ],
)
def test_vectors_of_another_model_by_its_name_are_warned_of_once(
    pipe: Any, vectors: SteeringVectors, made_with: Any, loaded: Any, warns: bool, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(chosen, "_warned", set())
    monkeypatch.setattr(type(pipe), "name_or_path", loaded)
    of_model = replace(vectors, made_with={"path": made_with})
    for _ in range(2):
        with icm_pipeline.steer(pipe, of_model, option="man"):
            pass
    told = [record.getMessage() for record in caplog.records if "fine-tuned" in record.getMessage()]
    assert len(told) == warns
    assert all(str(made_with) in message and str(loaded) in message for message in told)


def test_vectors_without_a_strength_want_an_alpha(pipe: Any, vectors: SteeringVectors) -> None:
    fresh = replace(vectors, strength=None)
    with pytest.raises(ValueError, match="give alpha="), icm_pipeline.steer(pipe, fresh, option="man"):
        pytest.fail("the context must not be entered")
    with icm_pipeline.steer(pipe, fresh, option="man", alpha=5.0):
        make(pipe)


def test_another_number_of_options_than_images_is_refused(pipe: Any, vectors: SteeringVectors) -> None:
    steered = icm_pipeline.steer(pipe, vectors, option=["man", "woman"])
    with pytest.raises(ValueError, match=r"2 options .* 3 image"), steered:
        make(pipe, 3)


def test_a_pipeline_of_an_unknown_class_is_refused_with_the_known_ones(vectors: SteeringVectors) -> None:
    class MyPipeline:
        pass

    steered = icm_pipeline.steer(MyPipeline(), vectors, option="man")
    with pytest.raises(ValueError, match=r"A MyPipeline is not known here.*FluxPipeline"), steered:
        pytest.fail("the context must not be entered")


def test_the_example_of_the_quick_start_runs_as_it_is_pasted_after_a_demo(
    vectors: SteeringVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[1] / "docs" / "quick_start.md"
    example = re.search(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert example is not None
    assert page.read_text("utf-8").index("--multirun") > example.end()  # after which there is more than one file
    folder = tmp_path / "outputs" / "artifacts" / "steer" / "tiny-gender-0123456789abcdef"
    folder.mkdir(parents=True)
    wide = {SELF: torch.nn.functional.normalize(torch.ones(4, 2, 96), dim=-1)}  # as the embedded model's layer is
    replace(vectors, directions=wide, model="tiny").save(folder / "vectors.safetensors")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example[1], names)
    assert (tmp_path / "woman.png").exists()
    assert len(names["images"]) == 2
    assert {layer: x.shape for layer, x in names["pooled"].items()} == {SELF: (1, 20, 96)}


def test_the_program_of_the_page_on_python_runs(pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[1] / "docs" / "python.md"
    program = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
    pipe.save_pretrained(tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)
    options, ages = itertools.cycle(["woman", "man"]), itertools.cycle(["young", "young", "old", "old"])
    names: dict[str, Any] = {"my_judge": lambda face: next(options), "my_judge_of_age": lambda face: next(ages)}
    exec(program, names)
    assert len(names["vectors"].layers) == 3
    assert len(names["women"]) == len(names["both"]) == 2
    assert names["women"][0].tobytes() != names["folded"][0].tobytes()
    assert sorted(names["looks"][0].options) == sorted(names["quarters"])
    assert len(names["old_women"]) == 2
    assert names["balance"].counts == {"woman": 2, "man": 2}
    assert len(names["single"]) == 4
    assert sorted(names["kept"]) == [0, 1, 2, 3]
    assert len(names["patched"]) == 1


def test_a_text_where_a_list_of_layers_belongs_is_refused(pipe: Any, vectors: SteeringVectors) -> None:
    for opened in (icm_pipeline.record(pipe, layers=SELF), icm_pipeline.steer(pipe, vectors, "man", layers=SELF)):
        with pytest.raises(ValueError, match=r"give a list, \['mid_block"), opened:
            pytest.fail("the context must not be entered")


def test_recording_merged_tokens_says_what_the_mean_is_of(pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    block = pipe.unet.get_submodule(SELF.removesuffix(".attn1"))
    plain = type(block)
    with icm_pipeline.record(pipe, layers=[SELF]):
        make(pipe)
    assert not caplog.records
    block.__class__ = type("ToMeBlock", (plain,), {})  # as tomesd patches a block
    with icm_pipeline.record(pipe, layers=[SELF]):
        make(pipe)
    block.__class__ = plain
    assert [record.levelname for record in caplog.records if "merged token counts once" in record.message] == [
        "WARNING"
    ]
