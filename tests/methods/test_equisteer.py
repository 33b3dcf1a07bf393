"""method=equisteer: all options are projected out, the drawn one is put in, and explicit prompts are left alone."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from icm_pipeline.backbones.base import Site
from icm_pipeline.backbones.families.flux import FLUX
from icm_pipeline.config.errors import ConfigError
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.equisteer import METHOD, Gated, auroc, magnitudes, switched
from icm_pipeline.methods.learnt import FILE, Learnt, Moving
from icm_pipeline.methods.prompt_pairs import prompt_jobs
from icm_pipeline.methods.registry import check_method
from tests.helpers.planted_fits import LAYERS, TOLD, fit_to_prompts, named_in, tokens_of
from tests.helpers.running import Run, pixels

FEW = ("method=equisteer", "method.params.pairs=2")


def planted(num_options: int) -> tuple[Tensor, dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(num_options, 8, generator=rng)
    direction = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=-1)
    basis = torch.linalg.svd(direction, full_matrices=False).Vh[:-1]
    own = {"threshold": torch.arange(1.0, 1 + num_options), "mean": torch.full((num_options,), 7.0)}
    return torch.randn(3, 5, 8, generator=rng), {"direction": direction, "basis": basis, **own}


@pytest.mark.parametrize("num_options", [2, 3])
def test_what_is_left_of_the_options_is_the_drawn_one_alone_and_all_else_stays(num_options: int) -> None:
    tokens, numbers = planted(num_options)
    options = torch.tensor([0, 1, num_options - 1])
    direction, basis = numbers["direction"], numbers["basis"]
    without = switched(tokens, numbers, options, 0.0, "threshold")
    assert (without @ direction.mT).abs().max() < 1e-5
    across = torch.eye(8) - basis.mT @ basis
    torch.testing.assert_close(without, tokens @ across)
    for magnitude, lengths in (("threshold", options + 1.0), ("mean", torch.full((3,), 7.0))):
        found = switched(tokens, numbers, options, 2.0, magnitude)
        expected = 2 * lengths[:, None, None] * direction[options, None]
        torch.testing.assert_close(found - without, expected.expand_as(found), atol=1e-5, rtol=1e-5)
        held = (found * direction[options, None]).sum(-1)
        torch.testing.assert_close(held, 2 * lengths[:, None].expand_as(held), atol=1e-5, rtol=1e-5)


def test_magnitudes_are_midway_between_prompts_that_name_nothing_and_those_that_name_the_option() -> None:
    labels = np.array([-1, 0, 1, -1, 0, 1])
    maxima = torch.rand(6, 3, 2, generator=torch.Generator().manual_seed(0))
    found = magnitudes(maxima, labels)
    for option in range(2):
        named = maxima[[1, 4] if option == 0 else [2, 5], :, option].mean(0)
        torch.testing.assert_close(found["mean"][:, option], named)
        neutral = maxima[[0, 3], :, option].mean(0)
        torch.testing.assert_close(found["threshold"][:, option], (named + neutral) / 2)


def test_the_fit_spans_the_planted_direction_and_asks_the_layer_that_tells_prompts_apart(
    settings_with: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_with("method.name=equisteer")
    assert fit_to_prompts(METHOD, settings, tmp_path, monkeypatch) == 6 + 9
    found = {
        name: load_file(tmp_path / FILE)[f"{name}/telling"] for name in ("basis", "direction", "mean", "threshold")
    }
    told = torch.stack([TOLD, -TOLD], 1)  # [T, K, d]
    torch.testing.assert_close(found["direction"], told)
    torch.testing.assert_close(found["basis"].abs(), TOLD[:, None])  # of the options' line, and of nothing else
    maxima: dict[int, list[Tensor]] = {-1: [], 0: [], 1: []}
    for job in prompt_jobs(settings, 3).jobs:
        maxima[named_in(job.prompt)].append((tokens_of(job, "telling") @ told.mT).amax(1))
    neutral, *own = (torch.stack(rows).mean(0) for rows in maxima.values())  # [T, K]
    mean = torch.stack([own[option][:, option] for option in range(2)], 1)
    torch.testing.assert_close(found["mean"], mean)
    torch.testing.assert_close(found["threshold"], (mean + neutral) / 2)
    gate = json.loads((tmp_path / "gate.json").read_text())
    assert gate == {"layer": "telling", "auroc": dict(zip(LAYERS, (0.5, 1.0), strict=True))}


def test_auroc_is_one_for_scores_apart_and_half_for_scores_alike() -> None:
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(400, generator=rng)
    assert auroc(scores[:200] + 10, scores[200:]) == 1.0
    assert auroc(torch.zeros(3), torch.zeros(4)) == 0.5
    assert abs(auroc(scores[:200], scores[200:]) - 0.5) < 0.08
    assert auroc(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0])) == (0 + 0.5 + 1 + 1) / 4


def test_an_explicit_prompt_is_left_alone_and_nothing_moves_before_the_gate_is_asked(
    settings_with: Callable[..., Settings],
) -> None:
    tokens, numbers = planted(2)
    tokens[0] = 0.1 * tokens[0]  # below both thresholds, 1 and 2
    tokens[1] = 0.1 * tokens[1]
    tokens[1, 3] += 5 * numbers["direction"][1]  # one token names the second option
    jobs = [Job(f"{index}", "a face", 0, index) for index in range(3)]
    inputs = MethodInputs(settings_with(), {}, option_of={"0": 0, "1": 0, "2": 1})
    learnt = Learnt({name: {key: rows[None] for key, rows in numbers.items()} for name in ("a", "b")}, [1.0])
    moving = Moving(learnt, lambda tokens, numbers, options: tokens + 1, inputs, jobs)
    gated, clock = Gated(moving, "b", numbers), StepClock(3)
    clock.start([1.0, 0.5, 0.2])
    assert gated(tokens, Site("a", "cross_attention"), clock) is None  # runs before the gate
    tokens[2] = 0.0
    moved = gated(tokens, Site("b", "cross_attention"), clock)
    assert moved is not None
    torch.testing.assert_close(moved - tokens, torch.tensor([1.0, 0.0, 1.0])[:, None, None].expand_as(tokens))
    clock.stand_at(1)
    later = gated(torch.full_like(tokens, 9.0), Site("a", "cross_attention"), clock)  # asked once
    assert later is not None
    assert later.mean((1, 2)).tolist() == [10.0, 9.0, 10.0]


def test_it_runs_through_the_stages_and_a_strength_needs_no_new_fit(run: Run) -> None:
    plain = pixels(run("originals"))
    folder = run("fit", *FEW)
    gate = json.loads((folder / "gate.json").read_text())
    assert gate["layer"] == max(gate["auroc"], key=gate["auroc"].get)
    assert len(gate["auroc"]) == 12
    assert all(layer.endswith("attn2") for layer in gate["auroc"])
    assert json.loads((folder / "cost.json").read_text())["images"] == 4 + 6
    ways = [
        run("steer", *FEW, f"method.params.{word}")
        for word in ("scale=1", "scale=2", "magnitude=mean", "vectors=first")
    ]
    assert len({str(sorted(pixels(each).items())) for each in ways} - {str(sorted(plain.items()))}) == 4
    assert run("fit", *FEW, "method.params.scale=2", "method.params.magnitude=mean") == folder


def test_it_needs_cross_attention_and_known_choices(settings_with: Callable[..., Settings]) -> None:
    assert "no cross-attention" in METHOD.why_not(FLUX)
    settings = settings_with("method.name=equisteer")
    settings.method.params = {"pairs": 2, "magnitude": "most", "vectors": "first", "scale": 1.0}
    with pytest.raises(ConfigError, match=r"magnitude=most is not known; choose from threshold, mean"):
        check_method(settings)
