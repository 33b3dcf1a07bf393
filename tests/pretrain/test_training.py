"""The training loop: it learns, and a killed training ends with the weights of one that was not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from icm_pipeline.pretrain.training import Loss, TrainingPlan, TrainingRun, train

PLAN = TrainingPlan(
    num_steps=60, batch_size=16, learning_rate=0.05, seed=1, warmup_steps=5, checkpoint_every=20, bf16=False
)


def loss(model: nn.Module, generator: torch.Generator) -> Loss:
    x = torch.randn(16, 3, generator=generator)
    return (model(x) - x.sum(1, keepdim=True)).square().mean(), {}


def run_in(folder: Path, data: str = "numbers") -> TrainingRun:
    return TrainingRun(folder, data, lambda figures: None)


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    before = loss(new_model(), torch.Generator().manual_seed(5))[0].item()
    model = train("part", new_model(), loss, PLAN, run_in(tmp_path))
    assert loss(model, torch.Generator().manual_seed(5))[0].item() < before / 10


def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = train("part", new_model(), loss, PLAN, run_in(tmp_path / "whole"))
    steps = iter(range(1000))

    def dying(model: nn.Module, generator: torch.Generator) -> Loss:
        if next(steps) == 33:
            raise KeyboardInterrupt
        return loss(model, generator)

    with pytest.raises(KeyboardInterrupt):
        train("part", new_model(), dying, PLAN, run_in(tmp_path / "killed"))
    resumed = train("part", new_model(), loss, PLAN, run_in(tmp_path / "killed"))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    first = train("part", new_model(), loss, PLAN, run_in(tmp_path))

    def never(model: nn.Module, generator: torch.Generator) -> Loss:
        raise AssertionError("a step was trained")

    again = train("part", new_model(), never, PLAN, run_in(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("other", ["seed", "data"])
def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, other: str) -> None:
    train("part", new_model(), loss, PLAN, run_in(tmp_path))
    plan = replace(PLAN, seed=2) if other == "seed" else PLAN
    with pytest.raises(ValueError, match=f"belongs to another training .*{other}"):
        train("part", new_model(), loss, plan, run_in(tmp_path, "others" if other == "data" else "numbers"))


def test_a_training_can_be_made_longer(tmp_path: Path) -> None:
    train("part", new_model(), loss, PLAN, run_in(tmp_path))
    steps: list[int] = []

    def counting(model: nn.Module, generator: torch.Generator) -> Loss:
        steps.append(1)
        return loss(model, generator)

    train("part", new_model(), counting, replace(PLAN, num_steps=65), run_in(tmp_path))
    assert len(steps) == 5


def test_figures_are_reported_as_the_training_goes(tmp_path: Path) -> None:
    reported: list[dict[str, float]] = []
    train("part", new_model(), loss, PLAN, TrainingRun(tmp_path, "numbers", reported.append))
    assert [row["pretrain/part/step"] for row in reported] == [0, 50]
    assert reported[1]["pretrain/part/loss"] < reported[0]["pretrain/part/loss"]
