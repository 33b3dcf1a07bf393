"""What `icm models` says was tested is what there are tests of; tools/proofs.py writes it as they pass."""

import re
from pathlib import Path

from icm_pipeline.backbones.proofs import proofs, trained
from icm_pipeline.backbones.registry import FAMILIES
from tests.backbones import test_families, test_many_families, test_with_picture
from tests.helpers.denoisers import TINY
from tests.helpers.pipelines import BUILDERS

RENEW = "a class or a test is new: run `python -m tools.proofs`"


def of_kind(kind: str) -> set[str]:
    return {name for name, mine in proofs().items() if kind in {proof.kind for proof in mine}}


def test_every_class_that_is_known_was_tested_and_no_other() -> None:
    known = {name for family in FAMILIES for name in (*family.pipelines, *family.also)}
    assert known <= set(proofs()), RENEW
    assert of_kind("a denoiser") == {tiny.pipeline for tiny in TINY.values()}, RENEW
    assert of_kind("with a picture") == set(test_with_picture.CLASSES) | set(test_with_picture.WITH_PICTURE), RENEW
    assert len(of_kind("a whole pipeline")) == len(BUILDERS), RENEW


def test_every_test_that_is_told_is_there_and_every_one_of_a_family_is_told() -> None:
    there = {
        name.removeprefix("test_").replace("_", " "): function
        for module in (test_families, test_many_families, test_with_picture)
        for name, function in vars(module).items() if name.startswith("test_")
    }  # fmt: skip
    told = {test for mine in proofs().values() for proof in mine for test in proof.tests}
    assert told <= set(there), RENEW
    source = Path(test_many_families.__file__).read_text("utf-8")
    assert {name.replace("_", " ") for name in re.findall(r"def test_(\w+)\(subject", source)} <= told, RENEW
    source = Path(test_families.__file__).read_text("utf-8")
    of_family = re.findall(r"def test_(\w+)\(\s*(?:loaded|backbone|compiled)\b", source)
    assert len(of_family) > 20
    assert {name.replace("_", " ") for name in of_family} <= told, RENEW


def test_embedded_models_are_named_by_their_class() -> None:
    assert trained() == {
        "StableDiffusionPipeline": "tiny", "StableDiffusionXLPipeline": "tiny_sdxl", "SanaPipeline": "tiny_sana",
        "FluxPipeline": "tiny_flux",
    }  # fmt: skip
