"""The solver of many logistic regressions: no slope is left, whatever the start, the space and the precision."""

import numpy as np
import pytest
import torch
from torch import Tensor

from icm_pipeline.localization import logistic
from icm_pipeline.localization.logistic import Solution, fit_logistic

SHAPES = {"more samples": (90, 12), "more features": (40, 70)}


def drawn(shape: str, num_options: int, b: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return standard features [b, n, d] and the columns of targets of options that lean on the first features."""
    n, d = SHAPES[shape]
    x = torch.randn(b, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = (x[0, :, :num_options] + torch.linspace(0, 1, n)[:, None]).argmax(1)
    targets = torch.nn.functional.one_hot(labels, num_options).double()
    return x, targets[:, 1:] if num_options == 2 else targets


def largest_slope(x: Tensor, targets: Tensor, C: float, solution: Solution) -> float:
    """Return the largest entry of the objective's gradient, by automatic differentiation."""
    weights = solution.weights.double().requires_grad_()
    bias = solution.bias.double().requires_grad_()
    logits = x @ weights + bias
    if targets.shape[1] == 1:
        loss = torch.nn.functional.softplus(logits) - targets * logits
    else:
        loss = targets * (logits.logsumexp(2, keepdim=True) - logits)
    (C * loss.sum() + weights.square().sum() / 2).backward()
    assert weights.grad is not None and bias.grad is not None
    return max(float(weights.grad.abs().max()), float(bias.grad.abs().max()))


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("num_options", [2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_solution_has_no_slope_left(shape: str, num_options: int, C: float) -> None:
    x, targets = drawn(shape, num_options)
    solution = fit_logistic(x.float(), targets, C, 1000)
    assert solution.converged.all()
    assert largest_slope(x, targets, C, solution) < 2e-3 * float(solution.weights.norm())
    torch.testing.assert_close(solution.logits, x.float() @ solution.weights + solution.bias, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_options", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_start_does_not_change_the_solution(shape: str, num_options: int) -> None:
    x, targets = drawn(shape, num_options)
    far = 5 * torch.randn(1, *targets.shape, generator=torch.Generator().manual_seed(1))
    plain, started = fit_logistic(x, targets, 1.0, 1000), fit_logistic(x, targets, 1.0, 1000, far)
    assert started.converged.all()
    torch.testing.assert_close(started.weights, plain.weights, atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_neighbours_logits_are_a_better_start_than_none(shape: str) -> None:
    x, targets = drawn(shape, 2)
    near = x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    start = fit_logistic(x, targets, 1.0, 1000).logits
    assert fit_logistic(near, targets, 1.0, 3, start).converged.all()
    assert not fit_logistic(near, targets, 1.0, 3).converged.all()


@pytest.mark.parametrize("num_options", [2, 3])
def test_both_spaces_hold_the_same_solution(num_options: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, targets = drawn("more features", num_options)
    samples = fit_logistic(x, targets, 1.0, 1000)
    monkeypatch.setattr(logistic, "_space", logistic._Space)
    torch.testing.assert_close(fit_logistic(x, targets, 1.0, 1000).weights, samples.weights, atol=1e-3, rtol=0)


def test_products_with_the_inverse_solve_what_substitution_solves(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does, done here."""
    generator = torch.Generator().manual_seed(0)
    root, b = (torch.randn(3, 20, columns, generator=generator, dtype=torch.float64) for columns in (20, 2))
    matrices = root @ root.mT + torch.eye(20, dtype=torch.float64)
    monkeypatch.setattr(logistic, "INVERTING", ("cpu",))
    torch.testing.assert_close(logistic._Factor(matrices).solve(b), torch.linalg.solve(matrices, b))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_options", [2, 3])
def test_the_solution_is_the_same_by_products_with_the_inverse(
    shape: str, num_options: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, targets = drawn(shape, num_options)
    plain = fit_logistic(x.float(), targets, 1.0, 1000)
    monkeypatch.setattr(logistic, "INVERTING", ("cpu",))
    inverted = fit_logistic(x.float(), targets, 1.0, 20)
    assert inverted.converged.all()
    torch.testing.assert_close(inverted.weights, plain.weights, atol=1e-3, rtol=0)


def test_what_float32_does_not_finish_is_finished_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    x, targets = drawn("more features", 3)
    monkeypatch.setattr(logistic, "FLOAT32_LIMIT", 1)
    solution = fit_logistic(x.float(), targets, 1.0, 1000)
    assert solution.converged.all()
    assert solution.weights.dtype == torch.float32
    torch.testing.assert_close(
        solution.weights.double(), fit_logistic(x, targets, 1.0, 1000).weights, atol=1e-3, rtol=0
    )


def test_too_few_iterations_are_told() -> None:
    x, targets = drawn("more samples", 3)
    assert not fit_logistic(x, targets, 1.0, 1).converged.any()


def test_the_same_problem_gives_the_same_bits() -> None:
    x, targets = (part.float() for part in drawn("more features", 2))
    first, again = fit_logistic(x, targets, 1.0, 1000), fit_logistic(x, targets, 1.0, 1000)
    assert torch.equal(first.weights, again.weights)


def test_separable_options_and_a_weak_penalty_stay_finite() -> None:
    x, _ = drawn("more samples", 2)
    x[:, :, 0] = torch.from_numpy(np.where(np.arange(90) % 2, 3.0, -3.0))
    targets = torch.from_numpy(np.arange(90) % 2)[:, None].double()
    solution = fit_logistic(x.float(), targets, 1e4, 1000)
    assert solution.converged.all()
    assert ((solution.logits > 0) == (targets > 0)).all()


@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize("num_options", [2, 3, 5])
@pytest.mark.parametrize(("num_samples", "width"), [(150, 400), (300, 30)])
def test_the_minimum_is_reached_however_weak_the_penalty(
    num_samples: int, width: int, num_options: int, separable: bool
) -> None:
    """Newton's step from what was found, in float64, is short beside it."""
    rng = np.random.default_rng(1)
    labels = np.arange(num_samples) % num_options
    means = rng.normal(size=(num_options, width)) / np.sqrt(width) * (6 if separable else 1.5)
    features = rng.normal(size=(num_samples, width)) + means[labels]
    features = (features - features.mean(0)) / features.std(0)
    x, targets = torch.from_numpy(features).float(), torch.nn.functional.one_hot(torch.from_numpy(labels), num_options)
    for C in (1e-6, 1e-3, 1.0, 1e3, 1e5, 1e6, 1e8):
        found = fit_logistic(x[None], targets[:, 1:] if num_options == 2 else targets, C, 1000)
        assert found.converged.all(), C
        w, b = found.weights[0].double(), found.bias[0].double()
        assert newton_step(x.double(), targets.double(), w, b, C) < 0.01 * torch.linalg.norm(w), C


def newton_step(x: torch.Tensor, targets: torch.Tensor, w: torch.Tensor, b: torch.Tensor, C: float) -> torch.Tensor:
    """Return the length of the step of the weights [d, k]; with more features than samples a bound of it."""
    logits, first = x @ w + b, 1 if w.shape[1] == 1 else 0
    p = torch.softmax(torch.cat([torch.zeros_like(logits), logits], dim=1) if first else logits, dim=1)
    others = (1 - targets) * p
    residual = (C * (targets * others.sum(1, keepdim=True) - others))[:, first:]
    if x.shape[1] > x.shape[0]:  # the penalty alone makes the problem 1-convex
        return torch.linalg.norm(w - x.T @ residual)
    wide, p = torch.cat([x, torch.ones(len(x), 1)], dim=1).double(), p[:, first:]
    curvature = C * (torch.diag_embed(p) - p[:, :, None] * p[:, None])
    hessian = torch.einsum("nkl,ni,nj->kilj", curvature, wide, wide).reshape(2 * [p.shape[1] * wide.shape[1]])
    penalty = torch.ones(p.shape[1], wide.shape[1], dtype=torch.float64)
    penalty[:, -1] = 1e-9  # of several options the intercepts' sum is free
    gradient = torch.cat([w - x.T @ residual, -residual.sum(0, keepdim=True)]).T
    step = torch.linalg.solve(hessian + torch.diag(penalty.flatten()), gradient.flatten())
    return torch.linalg.norm(step.reshape(gradient.shape)[:, :-1])


@pytest.mark.parametrize("C", [1.0, 1e5, 1e6, 1e8])
def test_two_options_that_a_line_parts_are_parted_at_every_penalty(C: float) -> None:
    """400 standardised samples of width 640: once 0.51 right at C = 1e6, with weights of length 3e10."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    x = rng.normal(size=(400, 640)) + labels[:, None] * 0.3
    x = torch.from_numpy((x - x.mean(0)) / x.std(0)).float()[None]
    targets = torch.from_numpy(labels)[:, None].float()
    found, mild = fit_logistic(x, targets, C, 1000), fit_logistic(x, targets, 1.0, 1000)
    assert ((found.logits[0] > 0) == (targets > 0)).all()
    assert torch.linalg.norm(found.weights) < 20 * torch.linalg.norm(mild.weights)
    assert torch.cosine_similarity(found.weights.flatten(), mild.weights.flatten(), dim=0) > 0.98
