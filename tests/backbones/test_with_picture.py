"""The classes that want a picture besides a prompt: the layout is that of their family's text-to-image class."""

from typing import Any

import pytest
import torch
from torch import Tensor

from icm_pipeline.backbones.base import Site
from icm_pipeline.backbones.registry import FAMILIES, attach
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from tests.helpers.pipelines import build
from tests.helpers.with_picture import make, of_class

BUILDER = {"stable_diffusion": "sd", "stable_diffusion_pag": "pag", "sdxl_pag": "sdxl"}
CLASSES = [(BUILDER.get(family.name, family.name), name) for family in FAMILIES for name in family.also]
IN_TWO_CALLS = ("FluxImg2ImgPipeline", "FluxInpaintPipeline", "FluxControlNetPipeline")


@pytest.mark.parametrize(("base", "name"), CLASSES, ids=[name for _, name in CLASSES])
def test_the_conditional_rows_are_shown_at_the_steps_that_run(base: str, name: str) -> None:
    pipe = of_class(build(base), name)
    backbone = attach(pipe)
    is_midway = any(word in name for word in ("Img2Img", "Inpaint", "Fill"))
    shown: list[Tensor] = []
    steps: list[int] = []

    def keep(tokens: Tensor, site: Site, clock: StepClock) -> None:
        shown.append(tokens.clone())
        steps.append(clock.step)

    def first(**texts: Any) -> Tensor:
        shown.clear()
        steps.clear()
        with hooked(backbone, [backbone.layers[-1]], keep):
            make(pipe, num_images_per_prompt=2, **texts)
        assert steps == ([1] if is_midway else [0, 1])
        assert len(shown[0]) == 2
        return shown[0]

    plain = first()
    assert not torch.equal(first(prompt="a dog"), plain)
    if base != "flux":
        assert torch.equal(first(negative_prompt="a dog"), plain)
    elif name in IN_TWO_CALLS:
        assert torch.equal(first(negative_prompt="a dog", true_cfg_scale=2.0), plain)
