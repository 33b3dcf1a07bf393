"""Of a class that nobody knows the layout is measured: as it was written down by hand for those that are known."""

import re

import pytest
from torch import nn

from icm_pipeline.backbones.base import Family
from icm_pipeline.backbones.modules import walk
from icm_pipeline.backbones.registry import attach
from icm_pipeline.checking.calling import Caller
from icm_pipeline.checking.explaining import Explained, explain, pattern_of
from icm_pipeline.checking.properties import check
from tests.helpers.denoisers import TINY
from tests.helpers.pipelines import built
from tests.helpers.tiny import build

MEASURED = ["flux", "cogview4", "lumina2"]
MORE = ["sd", "sd3", "auraflow", "krea2", "qwen_image"]


def caller_of(name: str) -> Caller:
    if name in TINY:
        return Caller(build(TINY[name]), size=TINY[name].size, texts=TINY[name].text)
    return Caller(built(name), size=32)


def sites_of(family: Family, denoiser: nn.Module) -> set[str]:
    return {name for name, _ in walk(denoiser) for pattern in family.sites.values() if re.fullmatch(pattern, name)}


@pytest.mark.parametrize("name", [*MEASURED, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_what_is_measured_is_what_the_family_says(name: str) -> None:
    caller = caller_of(name)
    known, found = attach(caller.pipe).family, explain(caller)
    assert found.open_questions == []
    assert found.rows == known.rows.partition(",")[0]
    denoiser = getattr(caller.pipe, known.denoiser)
    assert sites_of(known, denoiser) <= sites_of(found.family(), denoiser)
    assert [finding for finding in check(attach(caller.pipe, family=found.family()), caller) if finding.problem] == []


def test_the_file_is_the_family_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from icm_pipeline.backbones import registry

    monkeypatch.setattr(registry, "OWN", own := [])
    caller = caller_of("chroma")
    source = explain(caller).source()
    exec(compile(source.replace("ChromaPipeline", "MinePipeline").replace('"chroma"', '"mine"'), "mine", "exec"), {})
    (family,) = own
    assert (family.name, family.pipelines, family.rows) == ("mine", ("MinePipeline",), "two calls")
    assert [finding for finding in check(attach(caller.pipe, family=family), caller) if finding.problem] == []
    assert len(source.splitlines()) <= 26


def test_what_cannot_be_explained_is_a_question() -> None:
    """Z-Image gives its denoiser a list of latents."""
    found = explain(caller_of("z_image"))
    assert any(question.startswith("describe: the latents are a list") for question in found.open_questions)


def test_names_that_differ_in_numbers_alone_have_one_pattern() -> None:
    assert pattern_of("down_blocks.0.attentions.12.attn1") == r"down_blocks\.\d+\.attentions\.\d+\.attn1"
    assert re.fullmatch(pattern_of("single_blocks.0.ff"), "single_blocks.10.ff")


def test_a_class_is_named_in_words() -> None:
    assert Explained("HunyuanImagePipeline", "transformer").name == "hunyuan_image"
