"""A family of one's own: which class it is for is the user's word, and a name that is none is refused."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import ChromaPipeline, FluxPipeline
from torch import Tensor

import icm_pipeline
from icm_pipeline.backbones import registry
from icm_pipeline.backbones.base import BackboneError, Call, Family, Site
from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.guidance import LAYOUTS, conditional_rows
from icm_pipeline.backbones.registry import attach
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.hooks.hooked import hooked
from tests.helpers.denoisers import TINY
from tests.helpers.tiny import LENGTH, WIDTH, build, embedded, make


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


def test_a_class_of_diffusers_is_known_without_a_look_at_what_is_installed(
    pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`steer` attaches each time, and reading every package's entry points took half of that."""

    def asked(group: str) -> list[Any]:
        raise AssertionError(group)

    monkeypatch.setattr(registry, "entry_points", asked)
    assert attach(pipe).family.name == "chroma"


def test_a_denoiser_that_has_got_other_layers_is_looked_at_anew() -> None:
    pipe = build(TINY["chroma"])
    before = attach(pipe).layers
    blocks = pipe.transformer.single_transformer_blocks
    removed = blocks[-1]
    del blocks[-1]
    fewer = attach(pipe).layers
    assert set(before) - set(fewer) == {
        layer for layer in before if layer.startswith(f"single_transformer_blocks.{len(blocks)}.")
    }
    assert len(fewer) < len(before)
    blocks.append(removed)
    assert attach(pipe).layers == before


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_that_a_layout_does_not_explain_are_refused_with_how_many_there_were(layout: str) -> None:
    pipe = SimpleNamespace(do_perturbed_attention_guidance=True)
    with pytest.raises(BackboneError, match=r"ran on 10 rows for 2 image\(s\); [123 or]+ row\(s\) an image were"):
        conditional_rows(layout, pipe, Call(num_rows=10, num_images=2, index=0))
    with pytest.raises(BackboneError, match=r"ran on 5 rows for 2 image\(s\), which no guidance explains"):
        conditional_rows(layout, pipe, Call(num_rows=5, num_images=2, index=0))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[Family]:
    """Forget afterwards what a test has registered."""
    monkeypatch.setattr(registry, "OWN", own := [])
    monkeypatch.setattr(registry, "_LOOKED_UP", set())
    return own


class Mine(ChromaPipeline):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


def mine(pipe: Any) -> Any:
    return Mine(**{name: part for name, part in pipe.components.items()})


def test_a_registered_family_is_known_to_steer_and_record(pipe: Any, registered: list[Family]) -> None:
    family = icm_pipeline.register_family(replace(FLUX, name="mine", pipelines=("Mine",), also=()))
    own = mine(pipe)
    assert attach(own).family is family
    own.set_progress_bar_config(disable=True)
    with icm_pipeline.record(own) as seen:
        own(
            prompt_embeds=embedded(["a face"], (LENGTH, WIDTH)),
            num_inference_steps=1,
            height=64,
            width=64,
            guidance_scale=1.0,
            prompt_attention_mask=torch.ones(1, LENGTH, dtype=torch.bool),
            output_type="latent",
        )
    assert set(seen.recordings[0].activations) == set(attach(own).layers)


def test_a_package_gives_a_family_by_an_entry_point(
    pipe: Any, registered: list[Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = replace(FLUX, name="packaged", pipelines=("Mine",), also=())
    entry = SimpleNamespace(name="packaged", value="packaged:F", load=lambda: family)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == "icm_pipeline.families" else [])
    assert attach(mine(pipe)).family is family
    assert attach(mine(pipe)).family is family
    assert registered == [family]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "flux", "pipelines": ("Mine",)}, "flux is known already"),
        ({"name": "mine", "pipelines": ("ChromaPipeline",)}, "ChromaPipeline is known already"),
        ({"name": "mine", "pipelines": ("Mine",), "rows": "guided"}, "choose from: unconditional first"),
        ({"name": "mine", "pipelines": ("Mine",), "text": "("}, r"'\(', which is no pattern"),
    ],
)
def test_a_family_that_cannot_be_is_not_registered(
    registered: list[Family], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BackboneError, match=message):
        icm_pipeline.register_family(replace(FLUX, also=(), **changes))
    assert registered == []
