"""A pipeline's prompts are known for each of its images, whatever the family and however they are given."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch

import icm_pipeline
from icm_pipeline.backbones.base import BackboneError
from icm_pipeline.backbones.registry import attach
from icm_pipeline.hooks.prompts import prompts_seen
from icm_pipeline.methods.readers import Reader
from icm_pipeline.methods.vectors import SteeringVectors
from tests.helpers import tiny
from tests.helpers.denoisers import TINY
from tests.helpers.pipelines import BUILDERS, build
from tests.helpers.with_picture import make, of_class

SIZES = {"sana": 32}
NO_BINS = {"use_resolution_binning": False}
OWN: dict[str, dict[str, Any]] = {"sana": NO_BINS, "pixart": NO_BINS}
GUIDED: dict[str, dict[str, Any]] = {"flux": {"true_cfg_scale": 2.0, "negative_prompt": ["a car", "a car"]}}


def run(pipe: Any, name: str, prompt: Any, **more: Any) -> None:
    pipe.set_progress_bar_config(disable=True)
    size = SIZES.get(name, 16)
    given = {"prompt": prompt, "num_inference_steps": 1, "height": size, "width": size, "output_type": "latent"}
    with torch.no_grad():
        pipe(**given, **OWN.get(name, {}), **more)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_family_tells_the_prompt_of_each_image(name: str) -> None:
    pipe = build(name)
    with prompts_seen(pipe) as seen:
        assert seen.prompts is None
        run(pipe, name, ["a face", "a dog"], num_images_per_prompt=2, guidance_scale=3.0, **GUIDED.get(name, {}))
        assert seen.prompts == ["a face", "a face", "a dog", "a dog"]
        run(pipe, name, "a male nurse", guidance_scale=1.0)
        assert seen.prompts == ["a male nurse"]
    assert not {"encode_prompt", "check_inputs", "prepare_latents"} & set(vars(pipe))


@pytest.mark.parametrize("name", ["StableDiffusionImg2ImgPipeline", "StableDiffusionControlNetPipeline"])
def test_pipelines_that_begin_from_a_picture_tell_theirs(name: str) -> None:
    pipe = of_class(build("sd"), name)
    with prompts_seen(pipe) as seen:
        make(pipe, num_images_per_prompt=2)
    assert seen.prompts == ["a face", "a face"]


@pytest.mark.parametrize("name", BUILDERS)
def test_embeddings_have_no_text_and_a_text_of_the_call_before_is_forgotten(name: str) -> None:
    pipe = build(name)
    embeddings = encoded(pipe, name)
    with prompts_seen(pipe) as seen:
        for _ in range(2):
            run(pipe, name, "a male nurse", guidance_scale=1.0)
            assert seen.prompts == ["a male nurse"]
            run(pipe, name, None, **embeddings, guidance_scale=0.0)
            assert seen.prompts is None


def encoded(pipe: Any, name: str) -> dict[str, Any]:
    """Return what a call takes in a prompt's place."""
    required = {"device": "cpu", "num_images_per_prompt": 1, "prompt_2": None, "prompt_3": None}
    known = inspect.signature(pipe.encode_prompt).parameters
    given = {key: value for key, value in {**required, "do_classifier_free_guidance": False}.items() if key in known}
    with torch.no_grad():
        found = pipe.encode_prompt("a face", **given)
    if name in ("sdxl", "sd3"):
        return {"prompt_embeds": found[0], "pooled_prompt_embeds": found[2]}
    if name == "flux":
        return {"prompt_embeds": found[0], "pooled_prompt_embeds": found[1]}
    masked = {"prompt_attention_mask": found[1]} if name in ("sana", "pixart") else {}
    return {"prompt_embeds": found[0], **masked}


def test_a_call_that_fails_leaves_its_prompt_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = build("sd")
    with prompts_seen(pipe) as seen:
        with monkeypatch.context() as patched:
            patched.setattr(pipe.scheduler, "set_timesteps", None)
            with pytest.raises(TypeError):
                run(pipe, "sd", "a male nurse")
        assert seen.prompts is None
        run(pipe, "sd", "a face")
    assert seen.prompts == ["a face"]


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux"])
def test_words_for_another_text_encoder_count_too(name: str) -> None:
    pipe = build(name)
    with prompts_seen(pipe) as seen:
        run(pipe, name, "a face", prompt_2="a male nurse")
    assert seen.prompts == ["a face\na male nurse"]


def steered_to_shares(name: str) -> tuple[str | None, ...]:
    """Return the options of four images of two prompts, of which the second names an option."""
    tiny_one, pipe = TINY[name], tiny.build(TINY[name])
    layer, num_images = attach(pipe).layers[-1], tiny_one.num_images
    with icm_pipeline.record(pipe, [layer], num_images=num_images) as seen:
        tiny.make(tiny_one, pipe, num_steps=3)
    width, levels = seen.recordings[0].activations[layer].shape[-1], seen.recordings[0].noise_levels
    reader = Reader(0, levels[0], {layer: torch.zeros(2, width)}, torch.tensor([2.0, 0.0]), 0.95)
    directions = torch.nn.functional.normalize(torch.ones(3, 2, width), dim=-1)
    vectors = SteeringVectors(
        {layer: directions}, {layer: torch.ones(3)}, (0, 1, 2), tuple(levels), ("cat", "dog"), name, "animal",
        readers=(reader,), words={"dog": ["dog"]},
    )  # fmt: skip
    shares = icm_pipeline.steer(
        pipe, vectors, shares={"cat": 0.5, "dog": 0.5}, look=1, alpha=1.0, alpha_unit="activation",
        num_images=num_images,
    )  # fmt: skip
    with shares as looks:
        tiny.make(tiny_one, pipe, num_steps=3)
    return looks[0].options


def test_a_class_that_tells_its_prompts_where_it_checks_them_is_steered_to_shares() -> None:
    options = steered_to_shares("omnigen")
    assert sorted(map(str, options[:2])) == ["cat", "dog"]
    assert options[2:] == (None, None)


@pytest.mark.parametrize("name", ["deepfloyd_if", "instruct_pix2pix"])
def test_classes_with_methods_of_other_names_are_steered_to_shares(name: str) -> None:
    assert sorted(map(str, steered_to_shares(name))) == ["cat", "cat", "dog", "dog"]


def test_a_class_that_does_not_tell_its_images_prompts_is_refused_with_what_it_lacks() -> None:
    class Silent:
        def encode_prompt(self, prompt: str) -> None: ...

    with pytest.raises(BackboneError, match="Silent has none of prepare_latents, prepare_intermediate"):
        prompts_seen(Silent()).__enter__()


def each_encoded(prompt: str | list[str], device: Any = None, num_images_per_prompt: int = 1) -> list[torch.Tensor]:
    """Return embeddings as ERNIE-Image's pipeline does: a list with an item for each image."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    return list(
        tiny.embedded([text for text in texts for _ in range(num_images_per_prompt)], (tiny.LENGTH, tiny.WIDTH))
    )


ERNIE = replace(TINY["ernie_image"], text={}, attributes={"encode_prompt": each_encoded})


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_a_class_that_prepares_nothing_tells_its_prompts_where_it_sets_its_scheduler(guidance_scale: float) -> None:
    pipe, given = tiny.build(ERNIE), {"guidance_scale": guidance_scale, "use_pe": False}
    with prompts_seen(pipe) as seen:
        for _ in range(2):
            run(pipe, "ernie_image", ["a face", "a dog"], num_images_per_prompt=2, negative_prompt="a car", **given)
            assert seen.prompts == ["a face", "a face", "a dog", "a dog"]
            run(pipe, "ernie_image", None, prompt_embeds=each_encoded("a face"), negative_prompt="a car", **given)
            assert seen.prompts is None
        with pytest.raises(AttributeError):
            run(pipe, "ernie_image", "a nurse", generator="none", **given)
        run(pipe, "ernie_image", "a doctor", **given)
        assert seen.prompts == ["a doctor"]
        pipe.scheduler.set_timesteps(2)  # as a loop of one's own does
        assert seen.prompts is None
    assert "set_timesteps" not in vars(pipe.scheduler)


def test_a_class_that_prepares_nothing_is_steered_to_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TINY, "ernie_image", ERNIE)
    options = steered_to_shares("ernie_image")
    assert sorted(map(str, options[:2])) == ["cat", "dog"]
    assert options[2:] == (None, None)
