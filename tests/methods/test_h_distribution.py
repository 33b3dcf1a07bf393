"""method=h_distribution: a batch's shares are moved to the target along their gradient, fair ones left alone."""

import csv

import torch
from torch import Tensor

from icm_pipeline.methods.h_distribution import moved_to
from tests.helpers.running import Run, pixels

WEIGHTS = torch.tensor([[1.0, 0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0, 0]])
NUMBERS = {"weights": WEIGHTS, "bias": torch.zeros(2), "norm": torch.tensor(2.0)}
EVEN = torch.tensor([0.5, 0.5])


def shares(tokens: Tensor) -> Tensor:
    return (tokens.flatten(1) @ WEIGHTS.mT).softmax(1).mean(0)


def skewed() -> Tensor:
    tokens = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0))
    tokens[:, 0, 0] += 1
    return tokens


def test_shares_come_to_the_target_step_by_step_and_only_along_what_the_classifier_reads() -> None:
    tokens = skewed()
    moved = tokens
    for _ in range(60):
        moved = moved_to(moved, NUMBERS, None, EVEN, 0.3, "relative")
    assert (shares(tokens)[0] - 0.5).abs() > 0.2
    assert (shares(moved)[0] - 0.5).abs() < 0.02
    assert torch.equal(moved.flatten(1)[:, 1:], tokens.flatten(1)[:, 1:])
    towards = torch.tensor([0.2, 0.8])
    for _ in range(60):
        moved = moved_to(moved, NUMBERS, None, towards, 0.3, "relative")
    assert (shares(moved) - towards).abs().max() < 0.02


def test_a_move_is_down_the_gradient_of_the_divergence_and_as_long_as_was_asked() -> None:
    tokens, small = skewed(), 1e-3

    def divergence(changed: Tensor) -> Tensor:
        found = shares(changed)
        return (found * (found / EVEN).log()).sum()

    move = moved_to(tokens, NUMBERS, None, EVEN, 0.3, "relative") - tokens
    slopes = []
    for image in range(len(tokens)):
        nudged = tokens.clone()
        nudged[image, 0, 0] += small
        slopes.append((divergence(nudged) - divergence(tokens)) / small)
    slope = torch.stack(slopes)
    torch.testing.assert_close(move[:, 0, 0] / move[0, 0, 0], slope / slope[0], rtol=0.05, atol=0.02)
    assert (move[:, 0, 0] * slope <= 0).all()
    left = (shares(tokens) - EVEN).abs().sum() / 2
    torch.testing.assert_close(move.flatten(1).norm(dim=1).mean(), 0.3 * 2.0 * left)
    absolute = moved_to(tokens, NUMBERS, None, EVEN, 0.3, "activation") - tokens
    torch.testing.assert_close(absolute * 2.0, move)


def test_a_fair_batch_is_left_alone_and_an_image_depends_on_its_batch() -> None:
    tokens = skewed()
    fair = torch.cat([tokens, tokens * torch.tensor([-1.0, 1.0])])
    torch.testing.assert_close(moved_to(fair, NUMBERS, None, EVEN, 0.3, "relative"), fair, atol=1e-3, rtol=0)
    whole, half = (moved_to(rows, NUMBERS, None, EVEN, 0.3, "relative")[:4] for rows in (tokens, tokens[:4]))
    assert not torch.allclose(whole, half)


def test_it_runs_through_the_stages_a_prompt_a_batch_and_draws_nothing(run: Run) -> None:
    words = ("generate.images_per_prompt=6", "method=h_distribution", "alpha=0.5")
    folder = run("steer", *words)
    assert pixels(folder) != pixels(run("originals"))
    with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
        assert {row["option"] for row in csv.DictReader(file)} == {""}
