"""The classes that want a picture besides a prompt: the layout is that of their family's text-to-image class."""

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from icm_pipeline import record
from icm_pipeline.backbones.base import Backbone, BackboneError, Site
from icm_pipeline.backbones.registry import FAMILIES, attach
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from tests.helpers import tiny
from tests.helpers.denoisers_with_picture import WITH_PICTURE
from tests.helpers.pipelines import build
from tests.helpers.subjects import EnoughError
from tests.helpers.with_picture import make, of_class

BUILDER = {
    "stable_diffusion": "sd", "stable_diffusion_pag": "pag", "sdxl_pag": "sdxl", "latent_consistency": "sd",
    "sana_sprint": "sana", "sd3_pag": "sd3",
}  # fmt: skip
CLASSES = {name: BUILDER.get(family.name, family.name) for family in FAMILIES for name in family.also}
CLASSES |= {"StableDiffusionInstructPix2PixPipeline": "sd", "StableDiffusionXLInstructPix2PixPipeline": "sdxl"}
IN_TWO_CALLS = ("FluxImg2ImgPipeline", "FluxInpaintPipeline", "FluxControlNetPipeline")
ONE_AT_A_TIME = ("ZImageControlNetInpaintPipeline",)  # which repeats no mask
FROM_THE_START = (  # though its name says that it begins from a picture
    "StableDiffusion3ControlNetInpaintingPipeline",
    "QwenImageControlNetInpaintPipeline",
    "ZImageControlNetInpaintPipeline",
    "LatentConsistencyModelImg2ImgPipeline",  # whose schedule is as short as its strength
)


built = cache(build)  # what several classes are made of


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in WITH_PICTURE])
def test_the_conditional_rows_are_shown_at_the_steps_that_run(name: str) -> None:
    base, num_images = CLASSES[name], 1 if name in ONE_AT_A_TIME else 2
    pipe = of_class(built(base), name)

    def run(**texts: Any) -> None:
        make(pipe, num_images_per_prompt=num_images, size=32 if base == "sana" else 16, **texts)

    first = first_shown(attach(pipe), name, run, num_images)
    plain = first()
    assert not torch.equal(first(prompt="a dog"), plain)
    if base != "flux" and "negative_prompt" in inspect.signature(type(pipe).__call__).parameters:
        assert torch.equal(first(negative_prompt="a dog"), plain)
    elif name in IN_TWO_CALLS:
        assert torch.equal(first(negative_prompt="a dog", true_cfg_scale=2.0), plain)


@pytest.mark.parametrize("name", WITH_PICTURE)
def test_the_conditional_rows_of_embeddings_are_shown_at_the_steps_that_run(name: str) -> None:
    row = WITH_PICTURE[name]
    try:
        pipe = tiny.build(row)
    except ImportError as error:
        pytest.skip(str(error).strip().splitlines()[0])

    def run(**texts: Any) -> None:
        tiny.make(row, pipe, **texts)

    first = first_shown(attach(pipe), name, run, row.num_images)
    plain = first()
    assert not torch.equal(first(prompts=("a cat", "a hat")), plain)
    assert torch.equal(first(negative="worse"), plain)


def first_shown(backbone: Backbone, name: str, run: Callable[..., None], num_images: int) -> Callable[..., Tensor]:
    """Return what gives, for a run, the last layer's tokens at its first step, which all have to be of its images."""
    is_midway = any(word in name for word in ("Img2Img", "Inpaint", "Fill", "Depth")) and name not in FROM_THE_START
    shown: list[Tensor] = []
    steps: list[int] = []
    whole: list[bool] = []  # once there was a whole run

    def keep(tokens: Tensor, site: Site, clock: StepClock) -> None:
        shown.append(tokens.clone())
        steps.append(clock.step)
        if whole and "PAG" not in name:  # which takes its processors off at its end alone
            raise EnoughError

    def first(**texts: Any) -> Tensor:
        shown.clear()
        steps.clear()
        with suppress(EnoughError), hooked(backbone, [backbone.layers[-1]], keep):
            run(**texts)
        if not whole:
            assert steps == ([1] if is_midway else [0, 1])
            whole.append(True)
        assert len(shown[0]) == num_images and bool(shown[0].isfinite().all())
        return shown[0]

    return first


@pytest.mark.parametrize("layer", ["noise_refiner.0", "noise_refiner.0.attention", "t_embedder"])
def test_a_layer_that_the_controlnet_runs_as_well_is_refused(layer: str) -> None:
    pipe = of_class(built("z_image"), "ZImageControlNetPipeline")
    with pytest.raises(BackboneError, match="this pipeline's controlnet too"), record(pipe, layers=[layer]):
        pytest.fail("the context must not be entered")
    with pytest.raises(BackboneError, match="this pipeline's controlnet too"):
        attach(pipe, sites={"self_attention": layer})


def test_the_same_layer_is_read_where_the_transformer_alone_has_it() -> None:
    pipe, layer = build("z_image"), "noise_refiner.0.attention"
    with record(pipe, layers=[layer]) as seen:
        pipe("a face", num_inference_steps=2, height=16, width=16, output_type="latent")
    assert seen.recordings[0].activations[layer].shape == (1, 2, 32)
    controlled = of_class(built("z_image"), "ZImageControlNetPipeline")
    with record(controlled, layers=["layers.0"]) as seen:
        make(controlled)
    assert seen.recordings[0].activations["layers.0"].shape == (1, 2, 32)
