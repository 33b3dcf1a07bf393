"""A family that somebody wrote: a package's broken one costs a warning, and what cannot be is refused in a sentence."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from diffusers import FluxPipeline

import icm_pipeline
from icm_pipeline.backbones import registry
from icm_pipeline.backbones.base import BackboneError, Family
from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.registry import FAMILIES, known_families

ENTRY = "from icm_pipeline import register_family\nFAMILY = register_family(family)"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> list[Family]:
    """Forget afterwards what a test has registered."""
    monkeypatch.setattr(registry, "OWN", own := [])
    monkeypatch.setattr(registry, "_LOOKED_UP", set())
    return own


def mine(name: str = "mine", **changes: Any) -> Family:
    return replace(FLUX, **{"name": name, "pipelines": (name.title(),), "also": (), **changes})


def entry(load: Callable[[], Any], package: str = "theirs", name: str = "families") -> Any:
    return SimpleNamespace(name=name, value=f"{package}:F", dist=SimpleNamespace(name=package), load=load)


def given(monkeypatch: pytest.MonkeyPatch, *entries: Any) -> list[str]:
    """Return the names of the families that are known, beside ours, with some entry points."""
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    return [family.name for family in known_families()[len(FAMILIES) :]]


def test_two_packages_may_give_their_entry_points_one_name(own: list[Family], monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry(lambda: mine("one"), "first"), entry(lambda: mine("two"), "second")]
    assert given(monkeypatch, *entries) == ["one", "two"]


def test_a_family_that_its_module_has_registered_is_not_registered_twice(
    own: list[Family], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert given(monkeypatch, entry(lambda: icm_pipeline.register_family(mine()))) == ["mine"]
    assert not caplog.records


def missing() -> Any:
    raise ImportError("No module named 'gone'")


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (missing, "ImportError: No module named 'gone'"),
        (lambda: [mine()], "it is a list; give a Family, or a module that registers some"),
        (lambda: mine("flux"), "flux is known already"),
    ],
)
def test_a_package_whose_entry_gives_no_family_is_named_once_and_costs_no_other(
    own: list[Family], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, load: Any, reason: str
) -> None:
    entries = [entry(load), entry(lambda: mine("whole"), "whole")]
    assert given(monkeypatch, *entries) == given(monkeypatch, *entries) == ["whole"]
    (told,) = (record.getMessage() for record in caplog.records)
    assert told.startswith("The package theirs gives no family of pipelines by its entry point families = theirs:F: ")
    assert reason in told


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("flux", r"A family is a Family\(name=..., ...\), and this is a str"),
        ({"name": "mine"}, "this is a dict"),
        (mine(name=" ", pipelines=("Mine",)), "is no name of a family"),
        (mine(pipelines=()), "mine has no pipelines: name the classes"),
        (mine(pipelines="Mine"), r"pipelines='Mine', a text: write pipelines=\('Mine',\)"),
        (mine(also="Mine"), "also='Mine', a text"),
        (mine(pipelines=(FluxPipeline,)), "among its pipelines: give the class's name, 'FluxPipeline'"),
        (mine(pipelines=("my.module.Mine",)), "give the class's name, 'Mine'"),
        (mine(pipelines=("FluxModularPipeline",)), "FluxModularPipeline is known already"),
        (mine(describe=None), "describe=None, which is no function"),
        (mine(sites={}), r"sites=\{\}: give a pattern of its modules' names by kind"),
        (mine(sites={"attention": ".*"}), "sites of the kind 'attention'; choose from self_attention, "),
        (mine(tokens={"(": "pair"}), r"'\(', which is no pattern"),
    ],
)
def test_what_is_no_family_is_refused_when_it_is_registered(own: list[Family], family: Any, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        icm_pipeline.register_family(family)
    assert own == []


def test_every_family_here_keeps_what_is_asked_of_others() -> None:
    for family in FAMILIES:
        registry.check_family(family)


def test_a_cell_that_runs_again_puts_its_family_in_the_place_of_the_one_before(own: list[Family]) -> None:
    for rows in ("embedded", "two calls"):
        icm_pipeline.register_family(mine(rows=rows))
    assert [family.rows for family in own] == ["two calls"]


def test_another_module_replaces_a_family_only_where_it_says_so(own: list[Family]) -> None:
    family = icm_pipeline.register_family(mine())
    with pytest.raises(BackboneError, match=r"mine is known already, from tests\.backbones\..*replace=True"):
        exec(ENTRY, {"__name__": "another", "family": mine()})
    assert own == [family]
    exec(ENTRY.replace("(family)", "(family, replace=True)"), {"__name__": "another", "family": (new := mine())})
    assert own[0] is new
    assert len(own) == 1


def test_a_call_that_does_not_give_what_the_timestep_is_read_from_is_refused_with_what_it_gives() -> None:
    family = mine(timestep=lambda pipe, inputs: inputs["t"])
    with pytest.raises(BackboneError, match="mine reads the timestep from 't', and the denoiser is given: sample"):
        family.timestep_of(None, {"sample": 1})
    with pytest.raises(BackboneError, match="The describe of mine gave a NoneType"):
        mine(describe=lambda *call: None).described(None, (), {})
