"""What methods learn of layers is put in by steps, images and options; counted shares are those of the images made."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from icm_pipeline.arrays import Floats
from icm_pipeline.backbones.base import Site
from icm_pipeline.config.schema import Settings
from icm_pipeline.generation.jobs import Job
from icm_pipeline.hooks.clock import StepClock
from icm_pipeline.methods import casteer, counting, equisteer, leace, linear_act, midsteer
from icm_pipeline.methods.base import MethodInputs
from icm_pipeline.methods.counting import shares_of
from icm_pipeline.methods.learnt import FILE, Learnt, Moving
from icm_pipeline.methods.registry import method_named
from icm_pipeline.progress import working
from tests.helpers.planted_fits import LAYERS, with_layers
from tests.helpers.results import as_artifact

LEVELS = [1.0, 0.8, 0.5, 0.1]


def test_tokens_move_in_the_window_of_steps_by_the_numbers_of_their_layer_step_and_option(
    settings_with: Callable[..., Settings],
) -> None:
    settings = settings_with("method.first_step=1", "method.last_step=2")
    jobs = [Job(name, "a face", 0, 0) for name in ("first", "second")]
    learnt = Learnt({"a": {"at": torch.arange(4.0)}, "b": {"at": torch.zeros(4)}}, LEVELS)
    inputs = MethodInputs(settings, {}, option_of={"first": 1, "second": 0})
    moving = Moving(learnt, lambda x, own, options: x + 10 * own["at"] + options[:, None, None], inputs, jobs)
    clock, tokens, found = StepClock(2), torch.zeros(2, 1, 1), list[Any]()
    clock.start(LEVELS)
    for step in range(4):
        clock.stand_at(step)
        moved = moving(tokens, Site("a", "self_attention"), clock)
        found.append(moved if moved is None else moved.flatten().tolist())
    assert found == [None, [11, 10], [21, 20], None]
    clock.stand_at(1)
    clock.images = (1,)  # a call with rows of the second image alone
    alone = moving(tokens[:1], Site("a", "self_attention"), clock)
    assert alone is not None and alone.flatten().tolist() == [10]


OPTIONS = torch.tensor([1, 0])
NUMBERS = {
    "direction": (2, 6), "norm": (), "basis": (1, 6), "threshold": (2,), "slope": (2, 6), "intercept": (2, 6),
    "mean": (6,), "target": (2, 6), "low": (6,), "high": (6,), "reader": (2, 6), "centre": (2, 6), "left": (6, 1),
    "right": (1, 6),
}  # fmt: skip
Expected = Callable[[Tensor, dict[str, Tensor], dict[str, Tensor]], Tensor]
"""(tokens, the numbers of the step and of the first one) -> tokens."""
FORMULAS: list[tuple[str, tuple[str, ...], dict[str, Any], Expected]] = [
    (
        "casteer", ("alpha=2", "method.alpha_unit=activation"), {"edit": "add", "beta": 1.5},
        lambda x, own, first: casteer.added(x, own, OPTIONS, torch.tensor([2.0, 2.0]), "activation"),
    ),
    (
        "casteer", (), {"edit": "remove", "beta": 1.5},
        lambda x, own, first: casteer.removed(x, own, OPTIONS, 1.5),
    ),
    (
        "equisteer", (), {"scale": 2.0, "magnitude": "mean", "vectors": "per_step"},
        lambda x, own, first: equisteer.switched(x, own, OPTIONS, 2.0, "mean"),
    ),
    (
        "equisteer", (), {"scale": 2.0, "magnitude": "threshold", "vectors": "first"},
        lambda x, own, first: equisteer.switched(x, first, OPTIONS, 2.0, "threshold"),
    ),
    (
        "leace", ("alpha=2", "method.alpha_unit=activation"), {},
        lambda x, own, first: leace.erased(x, own) + 2 * own["direction"][OPTIONS][:, None],
    ),
    ("leace", ("alpha=0",), {}, lambda x, own, first: leace.erased(x, own)),
    (
        "linear_act", (), {"map": "mean", "strength": 0.7},
        lambda x, own, first: linear_act.transported(x, own, OPTIONS, 0.7, "mean"),
    ),
    ("midsteer", (), {"beta": 1.5}, lambda x, own, first: midsteer.switched(x, own, OPTIONS, 1.5)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words", "params", "expected"), FORMULAS)
def test_a_methods_hook_is_its_formula_with_the_strength_that_is_set_and_the_numbers_of_the_step(
    name: str, words: tuple[str, ...], params: dict[str, Any], expected: Expected, tmp_path: Path,
    settings_with: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rng, hooks = torch.Generator().manual_seed(5), list[Any]()
    numbers = {each: torch.randn(4, *shape, generator=rng) for each, shape in NUMBERS.items()}
    if name == "equisteer":  # its mean is another one, and no token reaches its threshold
        numbers |= {"mean": torch.randn(4, 2, generator=rng), "threshold": numbers["threshold"].abs() + 9}
    Learnt({"dull": {}, "telling": numbers}, LEVELS).save(tmp_path)
    (tmp_path / equisteer.GATE).write_text(json.dumps({"layer": "telling", "auroc": {}}))

    def hooked(backbone: Any, layers: list[str], hook: Any, num_images: int) -> Any:
        hooks.append((layers, hook, num_images))
        return nullcontext()

    monkeypatch.setattr("icm_pipeline.hooks.hooked.hooked", hooked)
    monkeypatch.setattr("icm_pipeline.backbones.text_attention.cross_attentions", lambda backbone: list(LAYERS))
    settings = settings_with(f"method.name={name}", *words)
    settings.method.params = params
    fit, jobs = as_artifact(tmp_path, "", FILE, equisteer.GATE), [Job(each, "a face", 0, 0) for each in "ab"]
    inputs = MethodInputs(settings, {"fit": fit}, layers=list(LAYERS), option_of={"a": 1, "b": 0})
    with method_named(name).applied(with_layers(), inputs, jobs):
        ((layers, hook, num_images),) = hooks
    assert (layers, num_images) == (list(LAYERS), 2)
    tokens, clock = torch.randn(2, 3, 6, generator=rng), StepClock(2)
    clock.start(LEVELS)
    hook(tokens, Site("telling", "self_attention"), clock)
    clock.stand_at(2)
    own, first = ({each: values[step] for each, values in numbers.items()} for step in (2, 0))
    found = hook(tokens, Site("telling", "self_attention"), clock)
    torch.testing.assert_close(found, expected(tokens, own, first))
    assert not torch.allclose(found, tokens, atol=1e-2)


def test_shares_are_those_of_each_prompts_own_images_that_show_an_option_made_anew_in_every_turn(
    settings_with: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second picture of a doctor is a woman's, of a nurse every one, and one of each shows nobody."""
    made = list[list[Job]]()
    monkeypatch.setattr(counting, "denoise", lambda backbone, jobs: made.append(jobs))
    monkeypatch.setattr(
        counting, "decode", lambda backbone, jobs, latents: [SimpleNamespace(image=job, job=job) for job in jobs]
    )

    def label(pictures: list[Job], attributes: Any) -> dict[str, Floats]:
        told = {"woman": [0.9, 0.1], "man": [0.2, 0.8], "nobody": [np.nan, np.nan]}
        shown = [
            "nobody" if number == 4 else "man" if "doctor" in job.prompt and number % 2 else "woman"
            for job, number in ((job, int(job.image_id) % 5) for job in pictures)
        ]
        return {name: np.array([told[each] for each in shown]) for name in attributes}

    settings, labeler, backbone = settings_with("compute.batch_size=3"), SimpleNamespace(label=label), SimpleNamespace()
    with working("fit", 20, "image") as work:
        for turn in range(2):
            prompts = ["a doctor", "a nurse"]
            found = shares_of(backbone, labeler, settings, prompts, 5, turn, work)  # type: ignore[arg-type]
            assert found.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    seeds = [job.seed for batch in made for job in batch]
    assert len(set(seeds)) == len(seeds) == 20
