"""What `icm models` says was tested is what there are tests of; tools/proofs.py writes it as they pass."""

import re
from pathlib import Path
from types import ModuleType

from icm_pipeline.backbones.proofs import proofs, trained
from icm_pipeline.backbones.registry import FAMILIES, PIPELINES
from tests.backbones import test_families, test_loaded_families, test_many_families, test_with_picture
from tests.helpers.denoisers import TINY
from tests.helpers.pipelines import BUILDERS

RENEW = "a class or a test is new: run `python -m tools.proofs`"


def of_kind(kind: str) -> set[str]:
    return {name for name, mine in proofs().items() if kind in {proof.kind for proof in mine}}


def test_every_class_that_is_known_was_tested_and_no_other() -> None:
    known = {name for family in FAMILIES for name in (*family.pipelines, *family.also)}
    assert known <= set(proofs()), RENEW
    assert of_kind("a denoiser") == {tiny.pipeline for tiny in TINY.values()}, RENEW
    assert of_kind("in a run") | of_kind("a whole pipeline") == set(PIPELINES), RENEW
    assert of_kind("with a picture") == set(test_with_picture.CLASSES) | set(test_with_picture.WITH_PICTURE), RENEW
    assert len(of_kind("a whole pipeline")) == len(BUILDERS), RENEW


def told(kind: str) -> list[set[str]]:
    """Return the tests that each class passed as one kind."""
    return [set(proof.tests) for mine in proofs().values() for proof in mine if proof.kind == kind]


def quick_tests(module: ModuleType, parameters: str) -> set[str]:
    """Return a module's quick tests whose first parameter is one of a pattern."""
    source = Path(str(module.__file__)).read_text("utf-8")
    found = re.findall(rf"((?:@.*\n)*)def test_(\w+)\(\s*(?:{parameters})\b", source)
    return {name.replace("_", " ") for marks, name in found if "mark.slow" not in marks}


def test_the_tests_that_are_told_are_those_there_are() -> None:
    of_denoisers, of_pictures = quick_tests(test_many_families, "subject"), quick_tests(test_with_picture, "name")
    assert all(tests == of_denoisers for tests in told("a denoiser")), RENEW
    assert all(len(tests) == 1 for tests in told("with a picture")), RENEW
    assert set().union(*told("with a picture")) == of_pictures, RENEW
    of_families = quick_tests(test_families, "loaded|backbone|compiled")
    assert len(of_families) > 20
    assert set().union(*told("a whole pipeline")) == of_families, RENEW
    of_runs = quick_tests(test_loaded_families, r"\w+")
    assert all(tests and tests <= of_runs for tests in told("in a run")), RENEW


def test_embedded_models_are_named_by_their_class() -> None:
    assert trained() == {
        "StableDiffusionPipeline": "tiny", "StableDiffusionXLPipeline": "tiny_sdxl", "SanaPipeline": "tiny_sana",
        "FluxPipeline": "tiny_flux",
    }  # fmt: skip
