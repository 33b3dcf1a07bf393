"""method=uce and method=time: ridge solutions fulfil their normal equations, and weights come back."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from icm_pipeline.arrays import Floats
from icm_pipeline.backbones.base import Backbone, BackboneError
from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.backbones.families.sana import SANA
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.generation.sampling import denoise
from icm_pipeline.methods import counting, keys_and_values, time, uce
from icm_pipeline.methods.base import Method, MethodInputs
from icm_pipeline.methods.concepts import concepts_of
from icm_pipeline.methods.keys_and_values import FILE, edited, embedded, last_token, linear_layers, solved, weights_put
from icm_pipeline.methods.time import aligned
from icm_pipeline.methods.uce import next_push, no_cross_attention
from tests.helpers.running import Run, pixels

FEW = ("method.params.images=2",)


def test_the_ridge_solution_fulfils_its_normal_equations_and_keeps_what_is_far_from_the_contexts() -> None:
    rng = torch.Generator().manual_seed(0)
    old, c, v = (torch.randn(*shape, generator=rng) for shape in ((5, 7), (3, 7), (3, 5)))
    found = solved(old, c, v, 0.5)
    torch.testing.assert_close(found @ (c.mT @ c + 0.5 * torch.eye(7)), v.mT @ c + 0.5 * old, atol=1e-4, rtol=1e-4)
    across = torch.linalg.svd(c)[2][3:]  # orthogonal to all contexts
    torch.testing.assert_close(across @ found.mT, across @ old.mT, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(c @ solved(old, c, v, 1e-6).mT, v, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(solved(old, c, v, 1e6), old, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(solved(old, c, c @ old.mT, 0.5), old, atol=1e-4, rtol=1e-4)


def test_edited_layers_make_of_a_concept_what_they_made_of_its_goal(backbone: Backbone) -> None:
    layers = linear_layers(backbone)
    assert len(layers) == 2 * sum(site.kind == "cross_attention" for site in backbone.sites)
    context, goal = embedded(backbone, ["a doctor", "a dog"], 2).mean(1, keepdim=False)
    found = edited(layers, context[None], goal[None], 1e-6)
    for name, layer in layers.items():
        torch.testing.assert_close(found[name] @ context, layer.weight @ goal, atol=1e-3, rtol=1e-3)


def test_what_is_embedded_is_what_the_text_encoder_gives(backbone: Backbone) -> None:
    prompts = ["a doctor", "dog"]
    found = embedded(backbone, prompts, 2)
    torch.testing.assert_close(found, backbone.pipe.encode_prompt(prompts, "cpu", 1, False)[0])
    assert last_token(backbone, "dog") == 3  # a token a letter, behind the first
    assert not torch.allclose(found[0], found[1])


def test_prompts_are_embedded_in_batches_of_the_size_that_was_set_with_the_same_result(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, sizes, real = ["a doctor", "dog", "a cat"], list[int](), keys_and_values.given_first

    def counted(backbone: Backbone, layer: Any, jobs: list[Job], take: Any) -> Any:
        sizes.append(len(jobs))
        return real(backbone, layer, jobs, take)

    monkeypatch.setattr(keys_and_values, "given_first", counted)
    torch.testing.assert_close(embedded(backbone, prompts, 2), embedded(backbone, prompts, 8))
    assert sizes == [2, 1, 3]


def test_weights_come_back_after_an_exception_and_are_others_before(backbone: Backbone, jobs: list[Job]) -> None:
    layers = linear_layers(backbone)
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    plain = denoise(backbone, jobs)
    with (
        pytest.raises(RuntimeError, match="midway"),
        weights_put(backbone, {name: 3 * w for name, w in before.items()}),
    ):
        assert not torch.equal(denoise(backbone, jobs), plain)
        raise RuntimeError("midway")
    assert all(torch.equal(layer.weight, before[name]) for name, layer in layers.items())
    assert torch.equal(denoise(backbone, jobs), plain)


def test_weights_that_are_not_in_memory_are_refused(backbone: Backbone) -> None:
    name = next(iter(linear_layers(backbone)))
    layer = linear_layers(backbone)[name]
    own = layer.weight
    layer.weight = torch.nn.Parameter(own.to("meta"))
    try:
        with pytest.raises(BackboneError, match=r"compute\.offload=sequential"), weights_put(backbone, {name: own}):
            pass
    finally:
        layer.weight = own


def test_what_lacks_is_pushed_and_adds_up_if_asked_to_until_a_concept_is_fair() -> None:
    push, target = np.array([[0.1, -0.1], [0.2, -0.2]]), np.array([0.5, 0.5])
    shares = np.array([[0.2, 0.8], [0.45, 0.55]])
    summed = next_push(push, shares, target, 0.1, integrate=True)
    np.testing.assert_allclose(summed, [[0.4, -0.4], [0.2, -0.2]])
    np.testing.assert_allclose(next_push(push, shares, target, 0.1, integrate=False), [[0.3, -0.3], [0.2, -0.2]])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([0, 5, 6, 1], [0, 5, 7, 6, 1], [0, 1, 3, 4, 5, 6]),  # a doctor, a woman doctor
        ([0, 4, 6, 1], [0, 5, 7, 6, 1], [0, 1, 3, 4, 5, 6]),  # an engineer, a woman engineer
        ([0, 5, 6, 1], [0, 5, 6, 1], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_words_are_aligned_with_themselves_and_padding_with_padding(
    old: list[int], new: list[int], expected: list[int]
) -> None:
    assert aligned(old, new, 6) == [min(place, 5) for place in expected]


def test_families_without_cross_attention_are_told_apart(backbone: Backbone) -> None:
    assert no_cross_attention(backbone.family) == no_cross_attention(SANA) == ""
    assert "no cross-attention" in no_cross_attention(FLUX)


@pytest.fixture
def fitted(
    backbone: Backbone, tmp_path: Path, settings_with: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Tensor]]:
    """Give a function that fits a method where images of its concepts show shares, and returns weights by layer."""

    def fit(method: Method, shares_of: Callable[[int], Floats], **params: Any) -> dict[str, Tensor]:
        monkeypatch.setattr("icm_pipeline.labelers.registry.load_labeler", lambda config: None)
        monkeypatch.setattr(counting, "shares_of", lambda *args: shares_of(args[5]))
        settings = settings_with(f"method.name={method.name}")
        settings.method.params = {"images": 10, "ridge": 1e-6, **params}
        assert method.fit is not None
        method.fit.run(backbone, MethodInputs(settings, {}), tmp_path)
        return load_file(tmp_path / FILE)

    return fit


@pytest.mark.parametrize(("shares", "rarer", "other"), [((0.8, 0.2), "man", "woman"), ((0.3, 0.7), "woman", "man")])
def test_time_makes_of_a_prompts_tokens_what_was_made_of_those_that_name_the_rarer_option(
    backbone: Backbone, fitted: Callable[..., dict[str, Tensor]], shares: tuple[float, float], rarer: str, other: str
) -> None:
    with_keys = rarer == "man"
    params = {"concepts": ["a dog"], "templates": ["the {}"], "keys": with_keys}
    found = fitted(time.METHOD, lambda turn: np.array([shares]), **params)
    assert {name.rpartition(".")[2] for name in found} == {"to_v", *(["to_k"] if with_keys else [])}
    old, named, frequent = embedded(backbone, ["the a dog", f"the a {rarer} dog", f"the a {other} dog"], 4)
    for name, weight in found.items():
        layer = linear_layers(backbone)[name]
        for place in range(len(old)):
            more = [place + (len(option) if place > 4 else 0) for option in (rarer, other)]  # behind "the a"
            own, wrong = (text[min(at, 15)] for text, at in zip((named, frequent), more, strict=True))
            torch.testing.assert_close(weight @ old[place], layer.weight @ own, atol=1e-3, rtol=1e-2)
            if 4 < place < 9:  # "dog" and the end
                assert not torch.allclose(weight @ old[place], layer.weight @ wrong, atol=1e-2)


def test_uce_adds_to_a_concept_what_lacks_of_each_option_and_leaves_what_is_kept(
    backbone: Backbone, fitted: Callable[..., dict[str, Tensor]]
) -> None:
    layers, judged = linear_layers(backbone), list[Tensor]()
    name = next(iter(layers))
    shown = np.array([[[0.2, 0.8], [0.9, 0.1]], [[0.5, 0.5], [0.5, 0.5]]])

    def shares_of(turn: int) -> Floats:
        judged.append(layers[name].weight.detach().clone())
        shares: Floats = shown[turn]
        return shares

    params = {"keep": ["a fox"], "rounds": 9, "tolerance": 0.05, "integrate": True}
    found = fitted(uce.METHOD, shares_of, concepts=["a dog", "a cat"], **params)
    assert len(judged) == 2  # until all are fair
    torch.testing.assert_close(judged[0], layers[name].weight.detach())
    assert torch.equal(judged[1], found[name])
    texts = {"a dog": 4, "a cat": 4, "a fox": 4, "woman": 5, "man": 3}  # the place of the last letter
    rows = embedded(backbone, list(texts), 8)[range(5), list(texts.values())]
    dog, cat, fox, woman, man = rows
    for layer, weight in found.items():
        own = layers[layer].weight
        torch.testing.assert_close(weight @ dog, own @ (dog + 0.3 * (woman - man)), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(weight @ cat, own @ (cat - 0.4 * (woman - man)), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(weight @ fox, own @ fox, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", ["uce", "time"])
def test_they_run_through_the_stages_and_nothing_is_drawn(run: Run, method: str) -> None:
    words = (f"method={method}", *FEW, *(["method.params.rounds=2"] if method == "uce" else []))
    folder = run("steer", *words)
    assert pixels(folder) != pixels(run("originals"))
    with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
        assert {row["option"] for row in csv.DictReader(file)} == {""}
    assert json.loads((run("evaluate", *words) / "metrics.json").read_text())["obeyed"] is None


def test_an_interrupted_edit_goes_on_with_the_rounds_that_are_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("method=uce", *FEW, "method.params.rounds=2", "method.params.tolerance=0.001", "seed=5")
    turns, count = list[int](), counting.shares_of

    def failing(*args: object) -> object:
        turns.append(args[5])  # type: ignore[arg-type]
        if turns == [0, 1]:
            raise RuntimeError("killed")
        return count(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(counting, "shares_of", failing)
    with pytest.raises(RuntimeError, match="killed"):
        run("fit", *words)
    rounds = json.loads((run("fit", *words) / "rounds.json").read_text())
    assert turns == [0, 1, 1]
    assert len(rounds) == 2


def test_concepts_are_the_subjects_of_the_prompts_unless_they_are_named(settings_with: object) -> None:
    settings = settings_with()  # type: ignore[operator]
    settings.attribute.evaluation_prompts = ["a face of a doctor", "a photo of a doctor", "an engineer", "dogs"]
    assert concepts_of(settings) == ["a doctor", "an engineer", "dogs"]
    settings.method.params = {"concepts": ["a nurse"]}
    assert concepts_of(settings) == ["a nurse"]
