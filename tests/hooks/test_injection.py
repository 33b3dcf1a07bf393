"""Prompt injection: exactly the conditional rows of the layers that are named get another prompt's text and mask."""

from typing import Any

import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.backbones.modules import path_to
from icm_pipeline.backbones.registry import attach
from icm_pipeline.backbones.text_attention import cross_attentions
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.prompt_contexts import text_context
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.injection import injected
from tests.helpers.models import load
from tests.helpers.pipelines import built

OTHERS = ["a king", "a queen", "cat", "a nurse"]


def given_to_layers(backbone: Backbone, jobs: list[Job], layers: list[str] | None) -> tuple[Tensor, dict[str, Any]]:
    """Return the final latents and what each cross-attention was called with at the last step; None: no injection."""
    seen: dict[str, Any] = {}
    handles = []
    text = None if layers is None else text_context(backbone, OTHERS, 4)
    with hooked(backbone, [], None, len(jobs)) as clock:
        for layer in cross_attentions(backbone):

            def look(module: Any, args: Any, kwargs: Any, output: Any, layer: str = layer) -> None:
                seen[layer] = kwargs

            module = path_to(backbone.denoiser, layer)[-1]
            handles.append(module.register_forward_hook(look, with_kwargs=True))
        if layers is None or text is None:
            latents = denoise(backbone, jobs)
        else:
            with injected(backbone, clock, layers, text):
                latents = denoise(backbone, jobs)
    for handle in handles:
        handle.remove()
    return latents, seen


def test_injection_touches_the_conditional_rows_of_its_layer_and_nothing_else(
    backbone: Backbone, jobs: list[Job]
) -> None:
    first, *_, last = layers = cross_attentions(backbone)
    plain, own = given_to_layers(backbone, jobs, None)
    changed, given = given_to_layers(backbone, jobs, [last])
    wanted = backbone.pipe.encode_prompt(OTHERS, "cpu", 1, False)[0]
    text = "encoder_hidden_states"
    torch.testing.assert_close(given[last][text][4:], wanted)
    assert torch.equal(given[last][text][:4], own[last][text][:4])
    assert not torch.allclose(own[last][text][4:], wanted)
    for layer in layers[:-1]:
        assert torch.equal(given[layer][text], own[layer][text])
    assert (changed - plain).abs().max() > 1e-4
    assert torch.equal(denoise(backbone, jobs), plain)
    assert (given_to_layers(backbone, jobs, [first])[0] - changed).abs().max() > 1e-4


def test_all_layers_given_another_prompt_make_that_prompts_images(backbone: Backbone, jobs: list[Job]) -> None:
    changed, _ = given_to_layers(backbone, jobs, cross_attentions(backbone))
    renamed = [Job(job.image_id, prompt, job.prompt_index, job.seed) for job, prompt in zip(jobs, OTHERS, strict=True)]
    torch.testing.assert_close(changed, denoise(backbone, renamed), rtol=1e-4, atol=1e-4)


def test_sanas_mask_is_that_of_the_other_prompt_too(tmp_path: Any) -> None:
    built("sana").save_pretrained(tmp_path)
    backbone = load(tmp_path, size=64, guidance_scale=4.5)
    jobs = [Job("0", "a face of a doctor", 0, 0)]
    layers = cross_attentions(backbone)
    text = text_context(backbone, ["dog"], 1)
    assert text.mask is not None and (text.mask < 0).any()
    seen: dict[str, Any] = {}
    module = path_to(backbone.denoiser, layers[0])[-1]
    handle = module.register_forward_hook(lambda m, a, kwargs, o: seen.update(kwargs), with_kwargs=True)
    with hooked(backbone, [], None, 1) as clock, injected(backbone, clock, layers[:1], text):
        denoise(backbone, jobs)
    handle.remove()
    assert torch.equal(seen["attention_mask"][1:], text.mask)
    assert not torch.equal(seen["attention_mask"][:1], text.mask)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sana", "pixart"])
def test_layers_stand_in_the_order_in_which_the_model_runs_them(name: str) -> None:
    pipe = built(name)
    backbone, ran = attach(pipe), list[str]()
    layers = cross_attentions(backbone)
    for layer in layers:
        module = path_to(backbone.denoiser, layer)[-1]
        module.register_forward_hook(lambda m, a, o, layer=layer: ran.append(layer))
    pipe("a dog", num_inference_steps=1, output_type="latent", height=64, width=64, **backbone.family.options)
    assert ran[: len(layers)] == layers


@pytest.mark.parametrize("name", ["flux", "sd3", "z_image"])
def test_joint_attention_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(BackboneError, match="one text stream that runs through all of its blocks"):
        cross_attentions(attach(built(name)))


def test_a_compiled_denoiser_is_refused() -> None:
    backbone = attach(built("sd"))
    layer = cross_attentions(backbone)[0]
    backbone.denoiser.compile()
    with (
        pytest.raises(BackboneError, match=r"compute\.compile=false"),
        hooked(backbone, [], None, 1) as clock,
        injected(backbone, clock, [layer], None),  # type: ignore[arg-type]
    ):
        pass
