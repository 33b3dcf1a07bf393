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
    monkeypatch.setattr(logistic, "_space", logistic._FeatureSpace)
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
