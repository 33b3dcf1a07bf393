"""Modular pipelines: which of them are known, how many images a call has, and what cannot be done with them."""

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from icm_pipeline import attach
from icm_pipeline.backbones.base import Backbone, BackboneError, Site
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from icm_pipeline.hooks.looking import looking
from tests.helpers.denoisers import TINY
from tests.helpers.hooks import add_one, look
from tests.helpers.looking import Chosen
from tests.helpers.modular import LAYERS, NUM_IMAGES, NUM_STEPS, WITHOUT_ENCODERS, make, modular, without_encoders
from tests.helpers.tiny import texts_of


@pytest.mark.parametrize("name", WITHOUT_ENCODERS)
def test_what_a_hook_is_shown_follows_the_prompt_and_not_the_negative_one(name: str) -> None:
    pipe, tiny, shown = without_encoders(name), TINY[name], list[list[Tensor]]()
    backbone, takes = attach(pipe), {each.name for each in pipe.blocks.inputs}

    def keep(tokens: Tensor, site: Site, clock: StepClock) -> None:
        shown[-1].append(tokens.clone())

    for prompts, negative in (("abcd", "x"), ("abcd", "y"), ("efgh", "x")):
        shown.append([])
        given = texts_of(tiny, prompts) | texts_of(tiny, negative * NUM_IMAGES, "negative_")
        given = {part: value for part, value in given.items() if part in takes}
        with hooked(backbone, backbone.layers[-1:], keep) as clock:
            pipe(
                num_inference_steps=2, height=tiny.size, width=tiny.size, output="latents",
                generator=torch.Generator().manual_seed(0), **given,
            )  # fmt: skip
        assert (clock.num_images, len(shown[-1])) == (NUM_IMAGES, 2)
        assert clock.num_calls == (2 if name == "flux2" else 4)
    first, other_negative, other_prompt = shown
    assert torch.equal(first[0], other_negative[0])
    assert not torch.allclose(first[0], other_prompt[0])


def test_rows_that_are_no_images_as_of_a_block_of_ones_own_are_an_error_in_the_first_step() -> None:
    pipe = modular("flux")
    backbone = attach(pipe)

    def doubling(module: nn.Module, args: Any, kwargs: Any) -> Any:
        both = {
            key: torch.cat([value, value]) if isinstance(value, Tensor) and len(value) == NUM_IMAGES else value
            for key, value in kwargs.items()
        }
        return args, both

    def halving(module: nn.Module, args: Any, output: Any) -> Any:
        return (output[0][:NUM_IMAGES],)

    handles = [
        backbone.denoiser.register_forward_pre_hook(doubling, with_kwargs=True),
        backbone.denoiser.register_forward_hook(halving),
    ]
    try:
        with pytest.raises(BackboneError, match=r"ran on 8 rows, .* steps 4 image"), hooked(backbone, [], look):
            make(pipe)
        with pytest.raises(BackboneError, match="8 rows for 4 image"), hooked(backbone, [], look, NUM_IMAGES):
            make(pipe)
    finally:
        for handle in handles:
            handle.remove()


def test_a_pipeline_of_blocks_of_ones_own_is_attached_to_by_its_family() -> None:
    pipe = modular("sdxl", "classifier-free")
    own: Any = type("Own", (diffusers.ModularPipeline,), {})
    pipe.__class__ = type("OwnBlocks", (own, type(pipe)), {})  # of no class that is known by name
    backbone = attach(pipe, family="sdxl")
    assert isinstance(backbone, Backbone)
    with hooked(backbone, [LAYERS["sdxl"]], add_one) as clock:
        make(pipe)
    assert (clock.num_images, clock.num_calls) == (NUM_IMAGES, 2 * NUM_STEPS)


def test_what_a_modular_pipeline_cannot_do_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"QwenImageLayeredModularPipeline .*not known"):
        attach(diffusers.QwenImageLayeredModularPipeline())
    backbone, layers = attach(modular("flux")), [LAYERS["flux"]]
    with pytest.raises(BackboneError, match="is modular"), looking(backbone, layers, layers, Chosen(range(1, 3), [0])):
        pytest.fail("the context must not be entered")
