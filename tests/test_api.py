"""steer and record around a pipeline that its user loaded: the README's example, and what is refused."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import icm_pipeline
from icm_pipeline.vectors import SteeringVectors, Strength
from tests.backbones.pipelines import build

SELF = "mid_block.attentions.0.transformer_blocks.0.attn1"


@pytest.fixture(scope="module")
def pipe() -> Any:
    built = build("sd")
    built.set_progress_bar_config(disable=True)
    return built


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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"option": "child"}, "woman, man"),
        ({"option": "man", "layers": ["elsewhere"]}, "elsewhere"),
        ({"option": "man", "alpha_unit": "metres"}, "relative or activation"),
        ({"option": "man", "window": (3, 2)}, r"window=\(3, 2\) holds no step"),
        ({"option": "man", "window": (-1, None)}, "holds no step"),
    ],
)
def test_what_is_not_known_is_refused(pipe: Any, vectors: SteeringVectors, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message), icm_pipeline.steer(pipe, vectors, **wrong):
        pytest.fail("the context must not be entered")


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


def test_the_readmes_example_runs(
    pipe: Any, vectors: SteeringVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = Path(__file__).parents[1] / "README.md"
    example = re.search(r"```python\n(.*?)```", readme.read_text("utf-8"), re.DOTALL)
    assert example is not None
    pipe.save_pretrained(tmp_path / "my-model")
    vectors.save(tmp_path / "vectors.safetensors")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example[1], names)
    assert len(names["images"]) == 4
    assert {layer: x.shape[:2] for layer, x in names["pooled"].items()} == {SELF: (1, 20)}
