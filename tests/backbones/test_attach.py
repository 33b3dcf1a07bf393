"""A family of one's own: which class it is for is the user's word, and a name that is none is refused."""

from dataclasses import replace
from typing import Any

import pytest
from diffusers import FluxPipeline
from torch import Tensor

import icm_pipeline
from icm_pipeline.backbones.base import BackboneError, Site
from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.registry import attach
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from tests.helpers.denoisers import TINY, build, make


class Somebodys(FluxPipeline):
    """A class with a call of its own, as those of others are."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return build(TINY["chroma"])


def test_a_class_that_is_not_known_is_attached_to_as_the_family_that_is_given(pipe: Any) -> None:
    from tests.helpers.pipelines import built

    own = Somebodys(**built("flux").components)
    with pytest.raises(BackboneError, match="__call__ of its own"):
        attach(own)
    for family in ("flux", replace(FLUX, name="mine", rows="embedded")):
        seen: list[Tensor] = []

        def keep(tokens: Tensor, site: Site, clock: StepClock, seen: list[Tensor] = seen) -> None:
            seen.append(tokens)

        backbone = attach(own, family=family)
        with hooked(backbone, backbone.layers[:1], keep):
            own("a face", num_inference_steps=1, height=16, width=16, output_type="latent")
        assert [tokens.shape[:2] for tokens in seen] == [(1, 16)]


def test_a_backbone_stands_in_a_pipelines_place(pipe: Any) -> None:
    backbone = attach(pipe, family=replace(FLUX, name="mine"))
    assert attach(backbone) is backbone
    with icm_pipeline.record(backbone) as seen:
        make(TINY["chroma"], pipe)
    assert set(seen.recordings[0].activations) == set(backbone.layers)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("fluks", r"family='fluks' is not known here\. Known: stable_diffusion, "),
        (replace(FLUX, rows="guided"), r"has the rows 'guided'; choose from: unconditional first, .*perturbed"),
        (replace(FLUX, tokens="last"), r"has the tokens 'last'; choose from: image only, pair, "),
        (replace(FLUX, tokens={".*": "last"}), r"has the tokens 'last'; choose from"),
        (replace(FLUX, denoiser="unet"), r"has no unet"),
        (replace(FLUX, sites={"self_attention": "attn"}), r"'attn' matches no module"),
    ],
)
def test_a_family_that_cannot_be_is_refused(pipe: Any, family: Any, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        attach(pipe, family=family)


def test_a_module_whose_order_no_pattern_names_is_refused_before_the_run(pipe: Any) -> None:
    backbone = attach(pipe, family=replace(FLUX, tokens={r"single_.*": "text first"}))
    refused = pytest.raises(BackboneError, match=r"in the output of transformer_blocks\.0\.attn is not known for flux")
    with refused, hooked(backbone, backbone.layers, lambda tokens, site, clock: None):
        pytest.fail("the context must not be entered")


def test_layouts_that_the_family_does_not_have_are_refused_when_it_runs(pipe: Any) -> None:
    """Chroma calls its denoiser twice, which is no embedded guidance."""
    backbone = attach(pipe, family=replace(FLUX, name="mine", rows="embedded"))
    refused = pytest.raises(BackboneError, match="ran 2 times in a step")
    with refused, hooked(backbone, backbone.layers[:1], lambda tokens, site, clock: None):
        make(TINY["chroma"], pipe)
