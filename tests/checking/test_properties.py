"""The checker keeps its word: what tests of families prove of tiny pipelines, it finds; what is wrong, it names."""

from dataclasses import replace
from typing import Any

import pytest
from diffusers import FluxImg2ImgPipeline

from icm_pipeline.backbones.base import Backbone, BackboneError, Family
from icm_pipeline.backbones.families.chroma import CHROMA
from icm_pipeline.backbones.families.stable_diffusion import STABLE_DIFFUSION
from icm_pipeline.backbones.registry import attach
from icm_pipeline.checking.calling import Caller
from icm_pipeline.checking.properties import PROMISES, check
from icm_pipeline.checking.subject import span
from tests.helpers.denoisers import TINY
from tests.helpers.pipelines import built
from tests.helpers.tiny import LENGTH, WIDTH, build

EMBEDS = {"prompt_embeds": (LENGTH, WIDTH), "prompt_attention_mask": (LENGTH,)}


@pytest.fixture(scope="module")
def chroma() -> Caller:
    return Caller(build(TINY["chroma"]), size=64, texts=EMBEDS)


def problems(backbone: Backbone, caller: Caller) -> dict[str, str]:
    """Return what is not kept, by the promise's first words."""
    found = list(check(backbone, caller))
    assert [finding.promise for finding in found] == list(PROMISES)
    return {finding.promise: finding.problem for finding in found if finding.problem}


@pytest.mark.parametrize("name", ["flux", "z_image", pytest.param("pag", marks=pytest.mark.slow)])
def test_a_known_family_keeps_every_promise_on_a_whole_pipeline(name: str) -> None:
    pipe = built(name)
    assert problems(attach(pipe), Caller(pipe, size=32)) == {}


def test_a_pipeline_without_text_encoders_is_given_embeddings(chroma: Caller) -> None:
    assert problems(attach(chroma.pipe), chroma) == {}


WRONG: list[tuple[Family, str, str]] = [
    (replace(CHROMA, rows="conditional first"), "the conditional rows", "ran 2 times in a step"),
    (replace(CHROMA, tokens={r"single_.*": "image first", ".*": "pair"}), "what else is in", "not among the image's"),
    (replace(CHROMA, timestep=lambda pipe, inputs: inputs["timestep"]), "the timestep of every call", "Timestep"),
    (replace(CHROMA, text=r"context_embedder"), "modules that give text", "as many tokens as the text has"),
]


@pytest.mark.parametrize(("family", "promise", "problem"), WRONG)
def test_a_family_that_is_wrong_in_one_thing_is_found_out(
    chroma: Caller, family: Family, promise: str, problem: str
) -> None:
    wrong = replace(family, name="wrong")
    found = problems(attach(chroma.pipe, family=wrong), chroma)
    told = next(text for name, text in found.items() if name.startswith(promise))
    assert problem in told


def test_unconditional_rows_taken_for_conditional_ones_are_found_out() -> None:
    """Nothing raises then: only the prompts tell."""
    pipe = built("sd")
    wrong = replace(STABLE_DIFFUSION, name="wrong", rows="conditional first")
    found = problems(attach(pipe, family=wrong), Caller(pipe, size=32))
    assert found["the conditional rows are those that follow the prompt"] == (
        "the family has rows 0 to 3, and the prompt changes rows 4 to 7"
    )
    assert "rows 0 to 3 were changed, and rows 4 to 7 are conditional" in str(
        found["a shift touches exactly the image tokens of these rows"]
    )


def test_what_stays_behind_is_found_out(chroma: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    from icm_pipeline.checking import subject

    def leaving(backbone: Backbone, *args: Any, **kwargs: Any) -> Any:
        backbone.denoiser.register_forward_hook(lambda module, args, output: None)
        return hooked(backbone, *args, **kwargs)

    hooked = subject.hooked
    monkeypatch.setattr(subject, "hooked", leaving)
    found = problems(attach(chroma.pipe), chroma)
    chroma.pipe.transformer._forward_hooks.clear()
    assert "1 hooks stay" in found["looking at every layer changes nothing, to the bit, and no hook stays"]


def test_a_call_that_fails_is_told_with_its_arguments(chroma: Caller) -> None:
    with pytest.raises(BackboneError, match=r"ended in TypeError: .*'str'.* another --size or --call may do"):
        replace(chroma, more={"guidance_scale": "nothing"}).make()


def test_a_pipeline_that_wants_a_picture_is_named() -> None:
    pipe = FluxImg2ImgPipeline(**built("flux").components)
    with pytest.raises(BackboneError, match=r"It takes a picture \(image=\)"):
        list(check(attach(pipe), Caller(pipe, size=32)))


def test_rows_are_told_in_words() -> None:
    assert [span(rows) for rows in ([4, 5, 6, 7], [2], [], [0, 2])] == ["rows 4 to 7", "row 2", "no row", "rows [0, 2]"]
