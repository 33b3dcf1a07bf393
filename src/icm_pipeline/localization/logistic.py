"""Many logistic regressions at once: minimise C * sum(log loss) + ||w||^2 / 2 with a free intercept.

The problem is that of scikit-learn's LogisticRegression. With more features than samples it is solved in the space of
the samples, w = X' a, whose size does not depend on the number of features. Both ways use nonlinear conjugate
gradients, preconditioned with the Cholesky factor of the Hessian at the start, which is renewed where the curvature has
changed. The factor is exact for two options; more options share one.

References:
    A fast dual algorithm for kernel logistic regression, 2005. https://doi.org/10.1007/s10994-005-0768-5
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from icm_pipeline.localization.log_loss import Loss, Task, total

TOLERANCE = 1e-4  # on the distance to the minimum, as a share of ||w||
FLOAT32_LIMIT = 200  # iterations after which float32 is taken to be too coarse
FLOAT32_STEEPEST = 1e5  # C times the number of samples or features, beyond which its factors lose every digit
STEP_LIMIT = 20  # trials of one line search
POOR = 0.1  # share of the slope left by an iteration from which a new factor is considered
FAR = 3.0  # times the step expected; from there on too
RENEWAL = 0.3  # mean relative change of the curvature from which a new factor pays
INVERTING = ("cuda",)  # devices on which a batch of substitutions takes far longer than products with the inverse


@dataclass(frozen=True)
class Solution:
    """The minima of b problems with n samples, d features and k columns of logits."""

    weights: Tensor  # [b, d, k]
    bias: Tensor  # [b, 1, k]
    logits: Tensor  # [b, n, k], from which a neighbouring problem can start
    converged: Tensor  # [b]


def fit_logistic(
    x: Tensor, targets: Tensor, C: float, max_iter: int, start: Tensor | None = None, counted: Tensor | None = None
) -> Solution:
    """Solve b problems together.

    x: [b, n, d] scaled features, float32 or float64; targets: [n, k] or [b, n, k], one column of 0 and 1 for two
    options, else one column per option; start: logits [1 or b, n, k] of a neighbouring problem; counted: [b, n, 1], 1
    for samples and 0 for rows of zeros that fill a problem up, None where all count. A float32 problem that is too
    steep for float32, or does not converge, is solved in float64.
    """
    is_coarse = x.dtype == torch.float32
    if is_coarse and C * max(x.shape[1:]) > FLOAT32_STEEPEST:
        solution = _solve(x.double(), Task(targets.double(), C, max_iter, counted), start)
        w, b, f = (each.to(x.dtype) for each in (solution.weights, solution.bias, solution.logits))
        return Solution(w, b, f, solution.converged)
    task = Task(targets.to(x.dtype), C, max_iter, counted)
    solution = _solve(x, task, start)
    left = ~solution.converged
    if not is_coarse or not left.any():
        return solution
    better = _solve(x[left].double(), task.of(left), None)
    pairs = zip(vars(solution).values(), vars(better).values(), strict=True)
    return Solution(*(old.index_put((left,), new.to(old.dtype)) for old, new in pairs))


def fit_on_gram(gram: Tensor, targets: Tensor, C: float, max_iter: int, start: Tensor | None = None) -> Solution:
    """Solve b problems of which only the samples' inner products are known, [b, n, n].

    The weights of the solution are shares of the samples a [b, n, k]: those of the features are X' a.
    """
    task = Task(targets.to(gram.dtype), C, max_iter)
    shares, bias, logits, done = _minimum(_SampleSpace(gram), gram, task, start)
    left = ~done
    if gram.dtype == torch.float32 and left.any():
        better = fit_on_gram(gram[left].double(), targets, C, max_iter)
        shares[left], bias[left], logits[left], done[left] = (
            each.to(part.dtype) for each, part in zip(vars(better).values(), (shares, bias, logits, done), strict=True)
        )
    return Solution(shares, bias, logits, done)


class _Factor:
    """The Cholesky factors of positive definite matrices [b, m, m], or where that is faster their inverses."""

    def __init__(self, matrices: Tensor) -> None:
        self._lower = torch.linalg.cholesky_ex(matrices)[0]
        self._is_inverse = matrices.device.type in INVERTING
        if self._is_inverse:
            one = torch.eye(matrices.shape[1], dtype=matrices.dtype, device=matrices.device)
            self._lower = torch.linalg.solve_triangular(self._lower, one.expand_as(matrices), upper=False)

    def solve(self, b: Tensor) -> Tensor:
        """Return the solutions for right-hand sides [b, m, k]."""
        if self._is_inverse:
            return self._lower.mT @ (self._lower @ b)
        return torch.cholesky_solve(b, self._lower)


class _Space:
    """Coefficients v: [b, m + 1, k], the last row the intercept; f: their logits [b, n, k].

    Here they are the weights. Gradients are kept as u with gradient = G u, where G, the metric, is the identity.
    """

    def __init__(self, x: Tensor) -> None:
        self._x = x

    def logits(self, v: Tensor) -> Tensor:
        return torch.baddbmm(v[:, -1:], self._x, v[:, :-1])

    def pull(self, r: Tensor) -> Tensor:
        """Return the change of coefficients that G maps to the gradient of sum(r * f)."""
        return self._x.mT @ r

    def dot(self, u: Tensor, v: Tensor, f: Tensor) -> Tensor:
        """Return u' G v, [b, 1, 1]; f = logits(v)."""
        return total(u * v)

    def penalty(self, v: Tensor, other: Tensor, f: Tensor) -> Tensor:
        """Return the inner product of two weight vectors, [b, 1, 1]; f = logits(other)."""
        return total(v[:, :-1] * other[:, :-1])

    def factor(self, curvature: Tensor) -> None:
        """Make the preconditioner for the curvature [b, n, 1] of every sample's loss."""
        bent, size = self._x * curvature, self._x.shape[2] + 1
        hessian = self._x.new_empty(len(self._x), size, size)
        hessian[:, :-1, :-1] = self._x.mT @ bent
        hessian[:, -1:, :-1] = bent.sum(1, keepdim=True)
        hessian[:, :-1, -1:] = hessian[:, -1:, :-1].mT
        hessian[:, -1:, -1:] = curvature.sum(1, keepdim=True)
        hessian.diagonal(dim1=1, dim2=2)[:, :-1] += 1
        self._factor = _Factor(hessian)

    def precondition(self, u: Tensor) -> Tensor:
        return self._factor.solve(u)


class _SampleSpace(_Space):
    """Coefficients are a share of every sample, w = X' a; G is the Gram matrix K = X X', beside 1 for the intercept.

    The preconditioner inverts K + K S K with S the curvature, bordered by the intercept, through the Cholesky factor of
    I + sqrt(S) K sqrt(S), whose eigenvalues are at least 1.
    """

    def pull(self, r: Tensor) -> Tensor:
        return r

    def dot(self, u: Tensor, v: Tensor, f: Tensor) -> Tensor:
        return self.penalty(u, v, f) + total(u[:, -1:] * v[:, -1:])

    def penalty(self, v: Tensor, other: Tensor, f: Tensor) -> Tensor:
        return total(v[:, :-1] * (f - other[:, -1:]))

    def factor(self, curvature: Tensor) -> None:
        self._root = curvature.sqrt()
        bent = self._root * self._x * self._root.mT
        bent.diagonal(dim1=1, dim2=2).add_(1)
        self._factor = _Factor(bent)
        self._column = self._root * self._factor.solve(self._root)
        self._column_sum = self._column.sum(1, keepdim=True)

    def precondition(self, u: Tensor) -> Tensor:
        share = self._root * self._factor.solve(self._root * (self._x @ u[:, :-1]))
        intercept = (u[:, -1:] - share.sum(1, keepdim=True)) / self._column_sum
        return torch.cat([u[:, :-1] - share - intercept * self._column, intercept], dim=1)


def _space(x: Tensor) -> _Space:
    return _Space(x) if x.shape[2] <= x.shape[1] else _SampleSpace(_gram(x))


def _gram(x: Tensor) -> Tensor:
    """Return x x' for each problem; NumPy on the CPU, whose product with the own transpose does half the work."""
    if x.device.type != "cpu":
        return x @ x.mT
    return torch.stack([torch.from_numpy(each @ each.T) for each in x.numpy()])


def _solve(x: Tensor, task: Task, start: Tensor | None) -> Solution:
    space = _space(x)
    found, bias, logits, done = _minimum(space, x, task, start)
    return Solution(x.mT @ found if isinstance(space, _SampleSpace) else found, bias, logits, done)


def _minimum(space: _Space, x: Tensor, task: Task, start: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the space's coefficients, [b, m, k], intercepts, logits and whether each problem converged, [b]."""
    limit = task.max_iter if x.dtype == torch.float64 else min(task.max_iter, FLOAT32_LIMIT)
    bent_at, v = _begin(space, len(x), task, start)
    f = space.logits(v)
    last, far = None, torch.zeros_like(v[:, :1, :1], dtype=torch.bool)
    for _ in range(limit):
        loss = Loss(f, task)
        u = torch.cat([v[:, :-1] - space.pull(loss.residual), -loss.residual.sum(1, keepdim=True)], dim=1)
        towards = _direction(space, u, last)
        done = towards.slope <= TOLERANCE**2 * space.penalty(v, v, f)
        suspect = last is None or bool((done | far | (towards.slope > POOR * last.slope)).any())
        if suspect and _has_changed(loss.curvature, bent_at):  # an outdated factor sees a minimum where there is none
            space.factor(loss.curvature)
            bent_at, towards = loss.curvature, _direction(space, u, None)
            done = towards.slope <= TOLERANCE**2 * space.penalty(v, v, f)
        if bool(done.all()):
            break
        t, f = _search(space, v, f, towards, loss)
        far = t > FAR
        v = v + t * towards.step
        last = towards
    return v[:, :-1], v[:, -1:], f, done.flatten()


def _begin(space: _Space, b: int, task: Task, start: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return curvature [b, n, 1] and coefficients after a Newton step from the logits `start`, or from logits of 0."""
    zeros = task.targets.new_zeros(b, *task.targets.shape[-2:])
    f = zeros if start is None else start.to(zeros.dtype).expand(b, -1, -1)
    loss = Loss(f, task)
    space.factor(loss.curvature)
    wanted = loss.residual + loss.curvature * f
    return loss.curvature, space.precondition(torch.cat([space.pull(wanted), wanted.sum(1, keepdim=True)], dim=1))


@dataclass(frozen=True)
class _Direction:
    """z: the preconditioned gradient, fz: its logits; slope: u' G z; step: where to go, f: its logits."""

    z: Tensor
    fz: Tensor
    slope: Tensor
    step: Tensor
    f: Tensor


def _direction(space: _Space, u: Tensor, last: _Direction | None) -> _Direction:
    """Return the conjugate direction of Polak and Ribiere, or the steepest one to begin with."""
    z = space.precondition(u)
    fz = space.logits(z)
    slope = space.dot(u, z, fz)
    if last is None:
        return _Direction(z, fz, slope, -z, -fz)
    turn = ((slope - space.dot(u, last.z, last.fz)) / last.slope.clamp_min(torch.finfo(z.dtype).tiny)).clamp_min(0)
    return _Direction(z, fz, slope, turn * last.step - z, turn * last.f - fz)


def _search(space: _Space, v: Tensor, f: Tensor, along: _Direction, loss: Loss) -> tuple[Tensor, Tensor]:
    """Return how far to go, [b, 1, 1], and the logits there.

    Newton's method on the slope along the direction, kept inside a bracket.
    """
    linear = space.penalty(v, along.step, along.f)
    square = space.penalty(along.step, along.step, along.f)
    first = slope = linear - total(loss.residual * along.f)
    here, t = f, torch.zeros_like(linear)
    low, high = t, torch.full_like(linear, torch.inf)
    for _ in range(STEP_LIMIT):
        newton = t - slope / (square + loss.bend(along.f)).clamp_min(torch.finfo(t.dtype).tiny)
        middle = torch.where(high.isinf(), 2 * low + 1, (low + high) / 2)
        t = torch.where((newton > low) & (newton < high), newton, middle)
        here = f + t * along.f
        loss = Loss(here, loss.task)
        slope = linear + t * square - total(loss.residual * along.f)
        if bool((slope.abs() <= 0.1 * first.abs()).all()):
            break
        low, high = torch.where(slope < 0, t, low), torch.where(slope > 0, t, high)
    return t, here


def _has_changed(curvature: Tensor, before: Tensor) -> bool:
    return bool(((curvature - before).abs().mean(1) > RENEWAL * before.mean(1)).any())
